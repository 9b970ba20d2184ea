#!/usr/bin/env bash
# A browser for tests/integration/test_report_page.py: Debian's chromium and its driver.
#
#   browser.sh --check     fails with one line where they are missing
#   browser.sh --install   gets them by apt-get, as root; otherwise like --check
set -euo pipefail

missing() {
    local program
    for program in chromium chromedriver; do
        command -v "$program" >/dev/null || printf '%s ' "$program"
    done
}

check() {
    local gone
    gone=$(missing)
    [[ -z $gone ]] || {
        echo "error: no ${gone% }: install them, on Debian with 'apt-get install chromium chromium-driver'" >&2
        exit 1
    }
}

install() {
    [[ -n $(missing) && $(id -u) == 0 ]] && command -v apt-get >/dev/null || return 0
    local apt=(apt-get -y -q -o Acquire::Retries=1 -o Acquire::http::Timeout=30 -o DPkg::Lock::Timeout=60)
    export DEBIAN_FRONTEND=noninteractive
    {
        timeout 300 "${apt[@]}" update &&
            timeout 600 "${apt[@]}" --no-install-recommends install chromium chromium-driver fonts-liberation
    } >&2 || echo "error: apt-get could not install chromium: is its server within reach?" >&2
}

case ${1:-} in
    --check) check ;;
    --install) install && check ;;
    *) echo "error: usage: $0 --check | --install" >&2 && exit 1 ;;
esac
