"""Masks are found by place and name, whatever a labelling tool makes of suffix, case and accents;
what could be mistaken is an error that names both."""
import unicodedata
from pathlib import Path

import pytest

from adlib.config import InputError
from adlib.data import pairing


def places(*names):
    return {Path("/data") / name: tuple(name.split("/")) for name in names}


def paired(pictures, masks):
    found, strays = pairing.pair(places(*pictures), places(*masks))
    return {str(picture)[6:]: str(mask)[6:] for picture, mask in found.items()}, [
        str(mask)[6:] for mask in strays]


@pytest.mark.parametrize("mask", [
    "crack/001.png", "crack/001_mask.png", "crack/001.PNG", "crack/001.bmp", "crack/001_MASK.tif",
    "crack/001.jpg", "Crack/001.png"])
def test_a_mask_of_any_suffix_and_case(mask):
    assert paired(["crack/001.png"], [mask]) == ({"crack/001.png": mask}, [])


@pytest.mark.parametrize(("picture", "mask"), [
    ("IMG_1.JPG", "img_1_mask.png"), ("0020.bmp", "0020.png"),  # BTech: anomalib 871
    ("a.b.png", "a.b_mask.png"), ("face_mask.png", "face_mask_mask.png"),
    ("face_mask.png", "face_mask.png"), ("[1] 50% *.png", "[1] 50% *_mask.png"),
    ("Riß é.png", unicodedata.normalize("NFD", "Riß é_mask.png"))])
def test_names_that_other_tools_stumble_over(picture, mask):
    assert paired([f"cut/{picture}"], [f"cut/{mask}"])[1] == []


def test_nested_pictures_have_masks_in_the_same_place_or_in_their_defects_folder():
    assert paired(["crack/a/1.png", "crack/b/1.png", "crack/b/2.png", "crack/3.png", "crack/b/3.png"],
                  ["crack/a/1.png", "crack/b/1.png", "crack/2.png", "crack/3.png"]) == ({
                      "crack/a/1.png": "crack/a/1.png", "crack/b/1.png": "crack/b/1.png",
                      "crack/b/2.png": "crack/2.png", "crack/3.png": "crack/3.png"}, [])


def test_a_mask_of_no_picture_is_told():
    assert paired(["crack/1.png"], ["crack/2.png", "cut/1.png", "1.png", "crack/1/1.png"]) == (
        {}, ["crack/2.png", "cut/1.png", "1.png", "crack/1/1.png"])


@pytest.mark.parametrize(("pictures", "masks", "words"), [
    (["crack/1.png", "crack/1.jpg"], ["crack/1.png"],
     "crack/1.png and /data/crack/1.jpg share the mask /data/crack/1.png"),
    (["crack/a/1.png", "crack/b/1.png"], ["crack/1.png"],
     "crack/a/1.png and /data/crack/b/1.png share the mask"),
    (["crack/1.png"], ["crack/1.png", "crack/1_mask.png"],
     "crack/1.png and /data/crack/1_mask.png are masks of one picture"),
    (["crack/1.png"], ["crack/1.png", "crack/1.bmp"],
     "crack/1.png and /data/crack/1.bmp are masks of one picture"),
    (["crack/1.png", "crack/1_mask.png"], ["crack/1_mask.png"],
     "crack/1.png and /data/crack/1_mask.png share the mask /data/crack/1_mask.png")])
def test_what_two_claim_is_an_error_that_names_them(pictures, masks, words):
    with pytest.raises(InputError, match=words):
        paired(pictures, masks)


@pytest.mark.parametrize(("pictures", "words"), [
    (["crack/1.png", "crack/1.JPG"], "crack/1.png and 1.JPG are two pictures of one name"),
    (["Crack/1.png", "crack/1.png"], "Crack/1.png and /data/crack/1.png are two pictures"),
    (["crack/1.png", "crack/1_mask.png"], "move it to the masks if it is one"),
    (["crack/masks/1.png"], "/data/crack/masks is a folder of masks among the pictures"),
    *(([f"{folder}/1.png"], "is a folder of masks")
      for folder in ("crack/gt", "crack/Mask", "ground_truth", "masks"))])
def test_pictures_that_no_mask_could_tell_apart_or_that_are_masks(pictures, words):
    with pytest.raises(InputError, match=words):
        pairing.check_defective(places(*pictures))


def test_a_defect_may_be_called_mask_and_batches_may_number_alike():
    pairing.check_defective(places("mask/1.png", "crack/a/1.png", "crack/b/1.png", "crack/1.png"))
