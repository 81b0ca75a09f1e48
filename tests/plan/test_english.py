"""Class names in prompts: COCO's eighty, and the kinds that other datasets have."""

from __future__ import annotations

import pytest

from diffgen.plan.english import one_or_more

# COCO's classes (Lin et al., 2014) in their own order, with what is not formed by an "s".
COCO = """
person/people bicycle car motorcycle airplane bus/buses train truck boat traffic light | fire hydrant | stop sign |
parking meter | bench/benches bird cat dog horse sheep/sheep cow elephant bear zebra giraffe backpack umbrella handbag tie
suitcase frisbee skis/skis snowboard sports ball | kite baseball bat | baseball glove | skateboard surfboard
tennis racket | bottle wine glass/wine glasses | cup fork knife/knives spoon bowl banana apple sandwich/sandwiches orange
broccoli/broccoli carrot hot dog | pizza donut cake chair couch/couches potted plant | bed dining table | toilet tv laptop
mouse/mice remote keyboard cell phone | microwave oven toaster sink refrigerator book clock vase scissors/scissors
teddy bear | hair drier | toothbrush/toothbrushes
"""
TWO_WORDS = (
    "traffic light", "fire hydrant", "stop sign", "parking meter", "sports ball", "baseball bat", "baseball glove",
    "tennis racket", "wine glass", "hot dog", "potted plant", "dining table", "cell phone", "teddy bear", "hair drier",
)  # fmt: skip
AN = {"airplane", "elephant", "umbrella", "apple", "orange", "oven"}


def coco() -> list[tuple[str, str]]:
    text = COCO.replace("|", " ").replace("\n", " ").replace("wine glass/wine glasses", "wine_glass/wine_glasses")
    for name in TWO_WORDS:
        text = text.replace(name, name.replace(" ", "_"))
    words = [word.replace("_", " ").partition("/") for word in text.split()]
    return [(one, many or f"{one}s") for one, _, many in words]


def test_coco_has_eighty_names() -> None:
    assert len(dict(coco())) == 80


@pytest.mark.parametrize(("name", "plural"), coco())
def test_the_names_of_coco(name: str, plural: str) -> None:
    assert one_or_more(name, 2) == one_or_more(name, 7) == plural
    pair, mass = name in ("scissors", "skis"), name == "broccoli"
    wanted = f"a pair of {name}" if pair else name if mass else f"{'an' if name in AN else 'a'} {name}"
    assert one_or_more(name, 1) == wanted


@pytest.mark.parametrize(
    ("name", "one", "many"),
    [
        ("cars", "a car", "cars"),  # names that are plural already
        ("people", "a person", "people"),
        ("buses", "a bus", "buses"),
        ("traffic signs", "a traffic sign", "traffic signs"),
        ("men", "a man", "men"),
        ("sheep", "a sheep", "sheep"),
        ("glasses", "a pair of glasses", "glasses"),
        ("traffic_light", "a traffic light", "traffic lights"),
        ("Pedestrian", "a Pedestrian", "Pedestrians"),
        ("SUV", "an SUV", "SUVs"),
        ("VAN", "a van", "vans"),
        ("MOTORCYCLE", "a motorcycle", "motorcycles"),
        ("FIRE HYDRANT", "a fire hydrant", "fire hydrants"),
        ("UMBRELLA", "an umbrella", "umbrellas"),
        ("TRUCKS", "a truck", "trucks"),
        ("BUS", "a bus", "buses"),
        ("lens", "a lens", "lens"),
        ("species", "a species", "species"),
        ("unidentified object", "an unidentified object", "unidentified objects"),
        ("one-way sign", "a one-way sign", "one-way signs"),
        ("pair of skis", "a pair of skis", "pair of skis"),
        ("hour hand", "an hour hand", "hour hands"),
        ("unicycle", "a unicycle", "unicycles"),
        ("lorry", "a lorry", "lorries"),
        ("aircraft", "an aircraft", "aircraft"),
        ("_", "a _", "_s"),
        ("车", "a 车", "车"),
        ("", "a ", ""),
    ],
)
def test_names_of_other_datasets(name: str, one: str, many: str) -> None:
    assert (one_or_more(name, 1), one_or_more(name, 3)) == (one, many)
