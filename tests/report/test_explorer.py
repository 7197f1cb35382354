"""What the explorer writes: codes, colours, bytes."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from explorer_cases import HOSTILE, cases, shown, tiling
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from uss_dagster import drawing
from uss_dagster.regions import Regions
from uss_dagster.report import explorer
from uss_dagster.report import explorer_codes as code
from uss_dagster.report import explorer_colours as colour
from uss_dagster.report.html import asset


def read_numbers(text: str) -> list[int]:
    out, value, shift = [], 0, 0
    for byte in base64.b64decode(text):
        value |= (byte & 127) << shift
        shift += 7
        if not byte & 128:
            out.append(value)
            value = shift = 0
    return out


def read_map(text: str, height: int, width: int) -> np.ndarray:
    codes, flat, at, i = read_numbers(text), np.zeros(height * width, np.int64), 0, 0
    while i < len(codes):
        for _ in range(codes[i]):
            flat[at] = flat[at - width]
            at += 1
        kind, length = codes[i + 1] % 3, codes[i + 1] // 3 + 1
        value = flat[at - 1] if kind == code.LEFT else flat[at - width + 1] if kind == code.ABOVE_RIGHT else codes[i + 2]
        i += 3 if kind == code.OTHER else 2
        flat[at : at + length] = value
        at += length
    for place in range(at, height * width):
        flat[place] = flat[place - width]
    return flat.reshape(height, width)


@given(st.lists(st.integers(0, 2**40)))
def test_numbers_come_back(values: list[int]) -> None:
    assert read_numbers(code.encode_numbers(values)) == values


@given(arrays(np.int32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 3) | st.integers(0, 500)))
def test_maps_come_back(labels: np.ndarray) -> None:
    np.testing.assert_array_equal(read_map(code.encode_map(labels), *labels.shape), labels)


@pytest.mark.parametrize("values", [[1, 1], [0.1, 0.7], [np.nan, np.nan], [np.nan, 1], [np.inf, np.inf], []])
def test_levels_and_scores_are_json_and_exact(values: list[float]) -> None:
    coded = json.loads(json.dumps(code._floats(np.array(values, np.float32)), allow_nan=False))
    found = (
        np.frombuffer(base64.b64decode(coded), "<f4")
        if isinstance(coded, str)
        else np.full(len(values), np.nan if coded is None else coded)
    )
    np.testing.assert_array_equal(found, np.array(values, np.float32))


def test_a_map_weighs_little() -> None:
    regions = tiling(np.random.default_rng(0), 120, 160, 60)
    assert len(code.encode_map(regions.atoms)) < 120 * 160 / 3, "a third of a byte a pixel"


def test_a_region_lies_in_the_smallest_that_holds_it() -> None:
    masks = np.zeros((4, 10, 10), bool)
    masks[0], masks[1, :8], masks[2, :5], masks[3, 1:9, :2] = True, True, True, True  # 7 of 8 rows of the last lie in the second
    nested = code.Nested.of(Regions.from_masks(masks))
    assert nested.kind == "held"
    assert nested.nest.tolist() == [-1, 0, 1, 0]
    found = cases()
    assert {name: code.Nested.of(regions).kind for name, regions in found.items()} == {
        "tiling": "tree",
        "forest": "tree",
        "pool": "held",
        "nested_pool": "tree",
        "labels": "flat",
        "none": "flat",
    }


def test_the_best_match_is_that_of_brute_force() -> None:
    found = cases(3)
    truths = [found["labels"], found["forest"]]
    for regions in (found["pool"], found["nested_pool"]):
        coded = code.encode(code.Nested.of(regions), regions.shape, truths).truth
        assert coded is not None
        which, where, iou = (read_numbers(coded[name]) for name in ("family", "region", "iou"))
        for region, mask in enumerate(regions.masks()):
            best = 0.0
            for truth in truths:
                others = truth.masks()[~truth.is_root]
                best = max(best, ((mask & others).sum(axis=(1, 2)) / np.maximum((mask | others).sum(axis=(1, 2)), 1)).max())
            assert iou[region] == int(1000 * best + 0.5)
            if best:
                other = truths[which[region] - 1].mask(where[region] - 1)
                assert (mask & other).sum() / (mask | other).sum() == best


@pytest.mark.parametrize("n", [1, 3, 8, 1000])
def test_what_is_in_view_is_what_the_pictures_show(n: int) -> None:
    for regions in cases().values():
        seen, area = np.unique(drawing.flat_cut(regions, n), return_counts=True)
        order = np.lexsort((seen, -area))
        assert code.Nested.of(regions).in_view(n) == [r for r in seen[order] if r >= 0]


def test_colours_are_stable_and_parts_have_shades_of_theirs() -> None:
    regions = tiling(np.random.default_rng(1), 40, 60, 60)
    nest, nested = regions.parent, code.Nested.of(regions)
    colours = colour.assign(nested)
    anchors = colours // len(colour.SHADES)
    for n in range(2, 9):
        shown_now = [r for r in np.unique(drawing.flat_cut(regions, n)) if r >= 0]
        assert len(set(anchors[shown_now])) == len(shown_now), "up to eight regions in view differ in more than shade"
    view = set(nested.in_view(8))
    for region in range(len(regions)):
        above = nest[region]
        while above >= 0 and above not in view:
            above = nest[above]
        if region not in view and above >= 0:
            assert anchors[region] == anchors[above]
    for region in range(len(regions)):
        parts = np.flatnonzero(nest == region)
        if len(parts) and region not in view:
            assert colours[region] in colours[parts], "one part goes on with the colour of the whole"
    np.testing.assert_array_equal(colour.assign(nested), colours)


def test_the_same_thing_has_the_same_colour_in_all_columns() -> None:
    truth = Regions.from_label_map(np.arange(4).repeat(10).reshape(1, -1).repeat(20, 0))
    other = Regions.from_label_map((3 - np.arange(4)).repeat(10).reshape(1, -1).repeat(20, 0))  # the same, in the other order
    first = colour.assign(code.Nested.of(truth))
    second = colour.assign(code.Nested.of(other), (code.Nested.of(truth), first))
    assert second.tolist() == first[::-1].tolist()


# Coefficients: G. Machado, M. Oliveira, L. Fernandes, "A physiologically-based model for simulation of color vision deficiency", 2009.
DEFICIENCIES = {
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_anchors_differ_for_the_colour_blind(deficiency: str) -> None:
    srgb = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in colour.ANCHORS]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.asarray(DEFICIENCIES[deficiency]).T, 0, 1)
    lab = np.cbrt(seen @ colour._TO_LMS.T) @ colour._TO_LAB.T
    apart = np.linalg.norm(lab[:, None] - lab, axis=-1) + np.eye(len(lab))
    assert apart.min() > 0.07, "more than three times what is just noticed"


def test_the_palette_is_of_colours_of_a_screen() -> None:
    palette = colour.palette()
    assert len(palette) == len(colour.ANCHORS) * len(colour.SHADES) == len(set(palette))
    assert palette[:: len(colour.SHADES)] == list(colour.ANCHORS)


def test_same_inputs_same_bytes_and_names_are_harmless(tmp_path: Path) -> None:
    titles = {"tiling": f"Tiling {HOSTILE}", "cats": "Cats"}
    first, second = (explorer.write(tmp_path / name, shown(), titles) for name in ("one", "two"))
    assert [p.relative_to(tmp_path / "one").as_posix() for p in first] == [
        "explorer.html",
        *(f"explorer/{n:04d}.{kind}" for n in range(3) for kind in ("jpg", "js")),
    ]
    for one, two in zip(first, second, strict=True):
        assert one.read_bytes() == two.read_bytes()
    for path in first:
        if path.suffix != ".jpg":
            text = path.read_text(encoding="utf-8")
            assert "<img" not in text
            assert text.count("</script>") == (2 if path.suffix == ".html" else 0)
    page = first[0].read_text(encoding="utf-8")
    index = json.loads(page.split('id="explorer-index">')[1].split("</script>")[0])
    assert [image["id"] for image in index["images"]] == ["a/b", f"c {HOSTILE}", "d"]
    assert index["titles"]["tiling"] == f"Tiling {HOSTILE}"


def test_a_page_of_its_own_needs_no_other_file_and_one_in_the_site_has_its_frame(tmp_path: Path) -> None:
    own, in_site = (explorer.write(tmp_path, [], {}, in_site=flag)[0].read_text(encoding="utf-8") for flag in (False, True))
    assert "<title>Hierarchy explorer</title>" in own
    assert "<nav" not in own
    assert '<link rel="stylesheet"' not in own
    assert asset("page.css").strip() in own
    assert '<a href="explorer.html" aria-current="page">' in in_site
    assert 'href="assets/page.css"' in in_site
    for page in (own, in_site):
        assert page.count(asset("explorer.js").strip()) == 1, "nothing in a script is escaped"


def test_large_pictures_are_shrunk_but_areas_and_matches_are_not(tmp_path: Path) -> None:
    truth = Regions.from_label_map(np.arange(2).repeat(700).reshape(1, -1).repeat(4, 0))
    masks = np.zeros((2, 4, 1400), bool)
    masks[0, :, :701], masks[1, 0, 3] = True, True
    one = explorer.SegmentedImage("d", "i", np.zeros((4, 1400, 3), np.uint8), [("Ground truth", truth)], {"e": Regions.from_masks(masks)})
    written = explorer.write(tmp_path, [one], {})
    found = json.loads(written[2].read_text(encoding="utf-8").split("] = ", 1)[1].removesuffix(";\n"))[1]
    assert read_numbers(found["area"]) == [2804, 1]
    assert read_numbers(found["truth"]["iou"])[0] == round(1000 * 2800 / 2804)
    assert read_map(found["map"], 2, 640).shape == (2, 640)


def test_annotators_are_columns() -> None:
    rng = np.random.default_rng(0)
    three = Regions.from_masks(rng.random((6, 5, 5)) < 0.5, source=["b", "a", "c", "a", "a", "b"])
    found = [(title.split()[-1], len(regions)) for title, regions in explorer.truths_of(three)]
    assert found == [("b", 2), ("a", 3), ("c", 1)], "the median first"
    for title, regions in explorer.truths_of(three):
        np.testing.assert_array_equal(regions.masks(), three.masks()[np.asarray(three.source) == title[-1]])
        assert len(np.unique(regions.members, axis=1).T) == regions.members.shape[1], "no atom twice"
    assert explorer.truths_of(None) == []


NAMES = st.text("aé/&=,:%#<~ \u2028", min_size=1)


@settings(max_examples=30)
@given(NAMES, NAMES, st.lists(NAMES, max_size=3))
def test_links_hold_any_name(dataset: str, image_id: str, entries: list[str]) -> None:
    parts = dict(p.split("=") for p in explorer.link(dataset, image_id, entries, 8).split("#")[1].split("&"))
    assert unquote(parts["i"]) == image_id
    assert [unquote(e) for e in parts.get("e", "").split(",") if e] == entries
    assert parts["g"] == "8"
