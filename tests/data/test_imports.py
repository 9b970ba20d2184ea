"""VOC and YOLO folders as COCO files: boxes computed by hand, and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image
from pycocotools.coco import COCO
from reference.modules import load_tool

from ssod.data.import_common import viewer_size, write_imported
from ssod.data.import_voc import read_voc
from ssod.data.import_yolo import read_names, read_yolo
from ssod.errors import UserError


def draw(path: Path, width: int = 100, height: int = 50, orientation: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (width, height)).save(path, exif=exif)


def voc_object(name: str = "dog", box: Any = (11, 6, 30, 25), more: str = "") -> str:
    corners = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{name}</name>{more}<bndbox>{corners}</bndbox></object>"


def write_voc(folder: Path, stem: str, *objects: str, size: str | None = None, filename: str = "") -> Path:
    """An image of 100 x 50 px and its XML file."""
    draw(folder / "JPEGImages" / f"{stem}.jpg")
    size = "<size><width>100</width><height>50</height><depth>3</depth></size>" if size is None else size
    path = folder / "Annotations" / f"{stem}.xml"
    path.parent.mkdir(exist_ok=True)
    filename = filename or f"{stem}.jpg"
    body = f"<folder>VOC</folder><filename>{filename}</filename>{size}{''.join(objects)}"
    path.write_text(f"<annotation>{body}</annotation>")
    return path


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """Two images with three objects, one without any."""
    flags = "<pose>Left</pose><truncated>1</truncated><difficult>0</difficult>"
    folder = tmp_path / "voc"
    write_voc(folder, "b", voc_object("dog", (1, 1, 100, 50)), voc_object("cat", (11.5, 6, 30, 25), flags))
    write_voc(folder, "a", voc_object("dog", (100, 50, 100, 50), "<difficult>1</difficult>"))
    write_voc(folder, "c")
    return folder


def coco_of(data: Any, path: Path) -> dict[str, Any]:
    write_imported(data, path)
    return dict(json.loads(path.read_text()))


# ---------------------------------------------------------------- VOC


def test_voc(voc: Path, tmp_path: Path) -> None:
    """Corners count from 1 and lie inside: 11 to 30 are 20 px that begin at 10."""
    content = coco_of(read_voc(voc), tmp_path / "out.json")
    names = [f"JPEGImages/{stem}.jpg" for stem in "abc"]
    assert content["images"] == [
        dict(id=n, file_name=name, width=100, height=50) for n, name in enumerate(names, 1)
    ]
    assert content["categories"] == [dict(id=1, name="cat"), dict(id=2, name="dog")]
    common = dict(iscrowd=0)
    assert content["annotations"] == [
        dict(id=1, image_id=1, category_id=2, bbox=[99, 49, 1, 1], area=1, difficult=1, **common),
        dict(id=2, image_id=2, category_id=2, bbox=[0, 0, 100, 50], area=5000, **common),
        dict(
            id=3,
            image_id=2,
            category_id=1,
            bbox=[10.5, 5, 19.5, 20],
            area=390,
            truncated=1,
            difficult=0,
            **common,
        ),
    ]


def test_an_imported_file_is_one_that_we_train_on(voc: Path, tmp_path: Path, registered: None) -> None:
    from ssod.data.datasets import LabeledCoco

    write_imported(read_voc(voc), tmp_path / "out.json")
    dataset = LabeledCoco(
        ann_file=str(tmp_path / "out.json"),
        data_prefix=dict(img=str(voc)),
        metainfo=dict(classes=("cat", "dog")),
        pipeline=[],
    )
    info = dataset.get_data_info(1)
    assert Path(info["img_path"]).is_file()
    assert [(one["bbox"], one["bbox_label"]) for one in info["instances"]] == [
        ([0, 0, 100, 50], 1),
        ([10.5, 5, 30, 25], 0),
    ]
    assert len(COCO(tmp_path / "out.json").getAnnIds()) == 3


def test_voc_options(voc: Path) -> None:
    lists = voc / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("b\na\n")
    assert [Path(each.file_name).stem for each in read_voc(voc, subset="train").images] == ["b", "a"]
    assert read_voc(voc, classes=["zebra", "dog", "cat"]).classes == ["zebra", "dog", "cat"]
    write_voc(voc, "a", voc_object("dog", (0, 0, 100, 50)))
    (voc / "Annotations" / "b.xml").unlink()
    zero = read_voc(voc, zero_based=True)
    assert zero.images[0].boxes == [("dog", (0, 0, 100, 50))]
    assert zero.notes == ["1 images without an .xml file were left out"]


def test_voc_in_one_folder_and_body_parts(tmp_path: Path) -> None:
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    path = write_voc(tmp_path, "a", voc_object(more=part), filename="somewhere/else.jpg")
    (tmp_path / "JPEGImages" / "a.jpg").rename(tmp_path / "a.jpg")
    (tmp_path / "JPEGImages").rmdir()
    path.rename(tmp_path / "a.xml")
    (tmp_path / "Annotations").rmdir()
    found = read_voc(tmp_path)
    assert [(each.file_name, len(each.boxes)) for each in found.images] == [("a.jpg", 1)]
    assert found.notes == ["1 body parts (<part>) were left out"]


def test_voc_images_of_one_name_are_not_told_apart(tmp_path: Path) -> None:
    write_voc(tmp_path, "1", voc_object())
    for folder in ("a", "b"):
        draw(tmp_path / "JPEGImages" / folder / "2.jpg")
    assert [image.file_name for image in read_voc(tmp_path).images] == ["JPEGImages/1.jpg"]
    write_voc(tmp_path, "3", filename="2.jpg")
    with pytest.raises(
        UserError, match=r"3\.xml is of image 2\.jpg, and there are .*a/2\.jpg and .*b/2\.jpg"
    ):
        read_voc(tmp_path)


def test_voc_takes_the_encoding_that_the_file_names(tmp_path: Path) -> None:
    path = write_voc(tmp_path, "a", voc_object("chaînon"))
    path.write_bytes(('<?xml version="1.0" encoding="ISO-8859-1"?>' + path.read_text()).encode("latin-1"))
    assert read_voc(tmp_path).classes == ["chaînon"]


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (voc_object(box=(0, 6, 30, 25)), r"object 1 of .*a\.xml .*empty or leaves .*say --zero-based"),
        (voc_object(box=(11, 6, 101, 25)), "empty or leaves its 100 x 50 image"),
        (voc_object(box=(30, 6, 11, 25)), "object 1 of"),
        (voc_object(box=("nan", 6, 11, 25)), "object 1 of"),
        (voc_object(box=("x", 6, 11, 25)), "no name or no box of four numbers"),
        (voc_object(name=""), "object 1 of"),
        (voc_object(more="<difficult>yes</difficult>"), "<difficult> 'yes': 0 or 1"),
        ("<object><name>dog</name><polygon/></object>", "has only a <polygon>: only upright boxes"),
        ("<object><name>dog</name><robndbox/></object>", "has only a <robndbox>"),
        ("<object><name>dog</name></object>", "needs a <bndbox> and has none"),
        ("<object>", "can't be read as XML"),
    ],
)
def test_objects_that_are_refused(tmp_path: Path, item: str, said: str) -> None:
    write_voc(tmp_path, "a", item)
    with pytest.raises(UserError, match=said) as caught:
        read_voc(tmp_path)
    assert "a.xml" in str(caught.value) and "\n" not in str(caught.value)


def test_voc_folders_that_are_refused(voc: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no \.xml file"):
        read_voc(tmp_path / "gone")
    with pytest.raises(UserError, match=r"class 'cat' in .* is not among --classes dog: add it"):
        read_voc(voc, classes=["dog"])
    with pytest.raises(UserError, match="must name each class once"):
        read_voc(voc, classes=["dog", "cat", "dog"])
    with pytest.raises(UserError, match=r"train\.txt can't be read"):
        read_voc(voc, subset="train")
    lists = voc / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    for text, said in (
        ("a 1\nb -1\n", "one image name a line"),
        ("a\na\n", "names a twice"),
        ("z\n", r"z\.xml can't be read"),
    ):
        (lists / "train.txt").write_text(text)
        with pytest.raises(UserError, match=said):
            read_voc(voc, subset="train")
    write_voc(voc, "d", filename="a.jpg")
    with pytest.raises(UserError, match=r"two \.xml files in .* are of image JPEGImages/a\.jpg"):
        read_voc(voc)
    (voc / "Annotations" / "d.xml").write_text("<annotations/>")
    with pytest.raises(UserError, match="begins with <annotations>"):
        read_voc(voc)
    write_voc(voc, "d", size="<size><width>50</width><height>100</height></size>")
    with pytest.raises(UserError, match=r"says that its image is 50 x 100 px, but .*d\.jpg is 100 x 50"):
        read_voc(voc)
    write_voc(voc, "d", size="")
    assert len(read_voc(voc).images) == 4
    (voc / "JPEGImages" / "d.jpg").unlink()
    with pytest.raises(UserError, match=r"the image of .*d\.xml \(d\.jpg\) is missing"):
        read_voc(voc)
    (voc / "JPEGImages" / "d.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"image .*d\.jpg can't be read"):
        read_voc(voc)


def test_only_empty_files_have_no_classes(tmp_path: Path) -> None:
    write_voc(tmp_path, "a")
    with pytest.raises(UserError, match="has a box: say with --classes"):
        read_voc(tmp_path)
    assert read_voc(tmp_path, classes=["dog"]).classes == ["dog"]


# ---------------------------------------------------------------- YOLO


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    """An image of 100 x 50 with two boxes, a turned one with one box, and one of background."""
    folder = tmp_path / "yolo"
    draw(folder / "images" / "a.jpg")
    draw(folder / "images" / "below" / "b.jpg", orientation=6)
    draw(folder / "images" / "c.png")
    (folder / "labels" / "below").mkdir(parents=True)
    (folder / "labels" / "a.txt").write_text("1 0.5 0.5 0.2 0.4\n\n0 0.0045 0.5 0.01 1\n")
    (folder / "labels" / "below" / "b.txt").write_text("0 0.5 0.25 1.0 0.5\n")
    (folder / "data.yaml").write_text("nc: 2\nnames: [cat, dog]\n")
    return folder


def test_yolo(yolo: Path, tmp_path: Path) -> None:
    """Centres and sides in parts of the image as a viewer shows it; b.jpg is 50 x 100 there."""
    content = coco_of(read_yolo(yolo), tmp_path / "out.json")
    sizes = [(each["file_name"], each["width"], each["height"]) for each in content["images"]]
    assert sizes == [("images/a.jpg", 100, 50), ("images/below/b.jpg", 50, 100), ("images/c.png", 100, 50)]
    assert content["categories"] == [dict(id=1, name="cat"), dict(id=2, name="dog")]
    boxes = [
        (one["image_id"], one["category_id"], one["bbox"], one["area"]) for one in content["annotations"]
    ]
    assert boxes == [
        (1, 2, [40, 15, 20, 20], 400),
        (1, 1, [0, 0, 0.95, 50], 47.5),  # 0.05 px outside are rounding
        (2, 1, [0, 0, 50, 50], 2500),
    ]


def test_images_of_hidden_folders_are_no_background(yolo: Path) -> None:
    before = read_yolo(yolo)
    draw(yolo / "images" / ".ipynb_checkpoints" / "a-checkpoint.jpg")
    assert read_yolo(yolo) == before


@pytest.mark.parametrize("layout", ["images/{}", "{}/images"])
def test_yolo_subsets(tmp_path: Path, layout: str) -> None:
    for subset in ("train", "val"):
        draw(tmp_path / layout.format(subset) / f"{subset}.jpg")
        labels = tmp_path / layout.format(subset).replace("images", "labels")
        labels.mkdir(parents=True)
        (labels / f"{subset}.txt").write_text("0 0.5 0.5 0.5 0.5")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    found = read_yolo(tmp_path, subset="val")
    assert [each.file_name for each in found.images] == [f"{layout.format('val')}/val.jpg"]
    assert found.classes == ["cat", "dog"] and len(found.images[0].boxes) == 1
    with pytest.raises(UserError, match="has no subset test: neither images/test and labels/test, nor"):
        read_yolo(tmp_path, subset="test")


def test_yolo_in_one_folder_with_names_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "flat"
    draw(folder / "a.jpg")
    (folder / "a.txt").write_text("1 0.5 0.5 0.5 0.5")
    (folder / "my_names.txt").write_text("x\ny\n")
    assert read_yolo(folder, names=folder / "my_names.txt").images[0].boxes == [("y", (25, 12.5, 50, 25))]
    with pytest.raises(UserError, match=r"has none of data\.yaml.*say with --names FILE"):
        read_yolo(folder)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("0 0.5 0.5 0.2 0.4 0.9", "six numbers: a score"),
        ("0 0.1 0.1 0.2 0.1 0.2 0.2", "7 numbers: a polygon"),
        ("0 0.1 0.1 0.2 0.1 0.2 0.2 0.1 0.2", "9 numbers: a polygon, a rotated box"),
        ("0 0.5 0.5 0.2", "must be 'class x y width height'"),
        ("0 50 20 10 10", "with numbers from 0 to 1, not '0 50 20 10 10'"),
        ("0 0.5 -0.1 0.2 0.4", "from 0 to 1"),
        ("0 0.5 nan 0.2 0.4", "from 0 to 1"),
        ("0 a 0.5 0.2 0.4", "from 0 to 1"),
        ("2 0.5 0.5 0.2 0.4", "class 2: there are 2, numbered from 0"),
        ("cat 0.5 0.5 0.2 0.4", "class cat: there are 2"),
        ("-1 0.5 0.5 0.2 0.4", "class -1"),
        ("0 0.1 0.5 0.3 0.4", r"leaves the image by 5\.0 px"),
        ("0 0.5 0.5 0.0 0.4", "a box that is empty"),
    ],
)
def test_lines_that_are_refused(yolo: Path, line: str, said: str) -> None:
    (yolo / "labels" / "a.txt").write_text(f"0 0.5 0.5 0.2 0.4\n{line}\n")
    with pytest.raises(UserError, match=said) as caught:
        read_yolo(yolo)
    assert "line 2 of" in str(caught.value) and "a.txt" in str(caught.value) and "\n" not in str(caught.value)


def test_yolo_folders_that_are_refused(yolo: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read_yolo(tmp_path / "gone", names=yolo / "data.yaml")
    (yolo / "labels" / "z.txt").write_text("")
    with pytest.raises(UserError, match=r"the image of .*z\.txt is missing"):
        read_yolo(yolo)
    draw(yolo / "images" / "a.png")
    with pytest.raises(UserError, match=r"a\.jpg and .*a\.png have one name"):
        read_yolo(yolo)
    (yolo / "labels" / "classes.txt").write_text("cat")
    with pytest.raises(UserError, match=r"has data\.yaml and classes\.txt: say with --names"):
        read_yolo(yolo)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no image"):
        read_yolo(tmp_path / "empty", names=yolo / "data.yaml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("names: {0: cat, 2: dog}", r"numbers its classes \[0, 2\]"),
        ("names: cat", "has no list 'names'"),
        ("nc: 3\nnames: [cat, dog]", "nc=3, but 2 names"),
        ("names: [cat, cat]", "each class once"),
        ("names: []", "each class once"),
        ("names: [cat, no]", "class name False, which is no text: put it in quotes"),
        ("names: [cat]\nkpt_shape: [17, 3]", "keypoints"),
        ("names: [cat", "is no YAML"),
        ("- cat", "has no list 'names'"),
    ],
)
def test_class_names_that_are_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(UserError, match=said) as caught:
        read_names(tmp_path / "data.yaml")
    assert "\n" not in str(caught.value)


def test_class_names_by_number(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("names:\n  1: dog\n  0: cat\n")
    assert read_names(tmp_path / "data.yaml") == ["cat", "dog"]
    (tmp_path / "data.yaml").write_text("names: [0, 1, 2]\n")  # digits, say
    assert read_names(tmp_path / "data.yaml") == ["0", "1", "2"]


# ---------------------------------------------------------------- both


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_viewers_size(tmp_path: Path, orientation: int) -> None:
    from PIL import ImageOps

    for name in ("a.jpg", "a.png", "a.webp", "a.tif"):
        draw(tmp_path / name, orientation=orientation)
        with Image.open(tmp_path / name) as image:
            image.load()
            assert viewer_size(tmp_path / name) == ImageOps.exif_transpose(image).size


def test_another_file_is_not_written_over(voc: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out.json"
    write_imported(read_voc(voc), out)
    before = out.read_bytes()
    write_imported(read_voc(voc), out)
    assert out.read_bytes() == before
    with pytest.raises(UserError, match=r"out\.json exists and holds something else"):
        write_imported(read_voc(voc, classes=["dog", "cat"]), out)
    assert out.read_bytes() == before and [each.name for each in out.parent.iterdir()] == ["out.json"]
    for place in (tmp_path, out / "below.json"):
        with pytest.raises(UserError, match="cannot write"):
            write_imported(read_voc(voc), place)


def test_a_missing_library_is_one_line(voc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "globox", None)
    with pytest.raises(UserError, match=r'pip install -e "\.\[import\]"'):
        read_voc(voc)


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    module: ModuleType = load_tool("import_data")
    return module


def test_the_tool(tool: ModuleType, voc: Path, yolo: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out.json"
    assert tool.main(["voc", str(voc), "--out", str(out), "--classes", "dog", "cat"]) == 0
    assert capsys.readouterr().out == f"{out}: 3 images, 3 boxes, classes dog, cat\n"
    assert tool.main(["yolo", str(yolo), "--out", str(out), "--names", str(yolo / "data.yaml")]) == 2
    assert "exists and holds something else" in capsys.readouterr().err
    assert tool.main(["yolo", str(yolo), "--out", str(tmp_path / "yolo.json")]) == 0
    assert "3 images, 3 boxes, classes cat, dog" in capsys.readouterr().out
    assert tool.main(["voc", str(voc), "--out", str(out), "--subset", "gone"]) == 2
    (voc / "Annotations" / "a.xml").unlink()
    zero = [str(voc), "--out", str(tmp_path / "zero.json"), "--zero-based"]
    assert tool.main(["voc", *zero]) == 0
    assert json.loads((tmp_path / "zero.json").read_text())["annotations"][0]["bbox"] == [1, 1, 99, 49]
    assert "note: 1 images without an .xml file were left out" in capsys.readouterr().out
