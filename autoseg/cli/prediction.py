"""The commands that predict and draw predictions: predict, overlay."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from .command import command
from .failures import cases, finish, say_dry_run
from .options import add_allow_code, add_device, add_dry_run, add_nifti_geometry, add_overwrite, add_postprocess, settings_given
from .output import say
from .units import duration, gigabytes, steps

if TYPE_CHECKING:
    from ..schema.settings import PredictSettings


def _add_predict_arguments(parser: ArgumentParser) -> None:
    images = parser.add_mutually_exclusive_group(required=True)
    text = "images: folders of them, files, DICOM series, folders of series, or patterns like 'scans/*/T1.nii.gz'; one or several"
    images.add_argument("-i", "--input", type=Path, nargs="+", metavar="PATH", help=text)
    text = "serve a folder into which images fall: each is segmented when it is complete, with the model kept loaded, until Ctrl-C"
    images.add_argument("--watch", type=Path, metavar="FOLDER", help=text)
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="PATH", help="folder for the segmentations; a file for one image"
    )
    parser.add_argument("--every", type=duration, metavar="TIME", help="with --watch: time between two looks at the folder (default 5s)")
    add_overwrite(parser)
    parser.add_argument("-d", "--dataset", help="trained dataset (needed only when several are trained)")
    text = "models in a folder anywhere, without a home: results of a dataset, one model, or one fold; it may be renamed or a copy"
    parser.add_argument("-m", "--model", type=Path, dest="folder", metavar="FOLDER", help=text)
    parser.add_argument("-c", "--configuration", dest="model", help="configuration or model to use instead of the chosen ones")
    parser.add_argument("--folds", nargs="+", metavar="FOLD", help="folds to average (default: all that each model was trained on)")
    mirrored = parser.add_mutually_exclusive_group()
    text = "average over mirrored images (default: where the model's held-out cases gained enough by it, or nobody measured that)"
    mirrored.add_argument("--tta", action="store_true", dest="mirror", default=None, help=text)
    text = "no averaging over mirrored images: several times faster, mostly slightly worse"
    mirrored.add_argument("--no-tta", action="store_false", dest="mirror", default=None, help=text)
    text = (
        "distance of tiles as a share of the patch (default: 0.5, or as the model's trainer says); two numbers: of a cascade's first stage,"
    )
    parser.add_argument("--step", type=float, nargs="+", metavar="SHARE", help=f"{text} and of its second")
    text = (
        "the cheapest models, one fold, coarse to fine without mirrored images and with larger steps, as far as held-out cases lost at "
        "most 0.01 Dice by it; the loss, time and memory that are expected are said first"
    )
    parser.add_argument("--fast", action="store_true", help=text)
    parser.add_argument("--low-memory", action="store_true", help="one network and one tile at a time: slower, in little memory")
    text = (
        "most memory to take, e.g. 4GB, 4GiB or 900MB (a number alone is GB): one network and one tile at a time, large arrays in "
        "temporary files where they do not fit; a case that needs more is refused before anything is computed"
    )
    parser.add_argument("--max-memory", type=gigabytes, dest="max_memory_gb", metavar="SIZE", help=text)
    parser.add_argument("--save-probabilities", action="store_true", help="also write <case>_probabilities.npy, one channel per organ")
    text = "also write maps of uncertainty, and of a single image, too, the table of what to check first"
    parser.add_argument("--uncertainty", action="store_true", help=text)
    text = "also write each organ's mean intensity (HU of CT) and estimated Dice into volumes.csv"
    parser.add_argument("--statistics", action="store_true", help=text)
    text = "the majority of the label maps of all folds and models, instead of the average of their probabilities"
    parser.add_argument("--vote", action="store_true", help=text)
    add_postprocess(parser, "instead of what the choice holds for those organs")
    parser.add_argument("--ending", help="file ending of the segmentations, e.g. .nrrd (default: that of each input)")
    add_nifti_geometry(parser)
    add_device(parser)
    add_allow_code(parser)
    add_dry_run(parser)


@command(
    _add_predict_arguments, "-i in -o out", "-i scan.nii.gz -o segmentation.nii.gz -d 3 --no-tta", "--watch incoming -o out -m my_model"
)
def predict(options: Namespace) -> int:
    """Segment new images.

    The trained dataset, the best models for each organ and both stages of a cascade are found automatically. The exit status is 1 if
    cases failed.
    """
    from ..pipeline import PredictSettings, predict_each
    from ..pipeline.dry_prediction import dry_prediction

    settings = PredictSettings(**settings_given(options, PredictSettings) | {"step": steps(options.step)})
    if options.watch is not None and options.dry_run:
        raise ValueError("--dry-run: expected images (-i), as nobody knows what will fall into the folder of --watch")
    if options.watch is not None:
        return _watch(options, settings)
    if options.every is not None:
        raise ValueError("--every: is the time between two looks at the folder of --watch, and nothing without it")
    if options.dry_run:
        return say_dry_run(dry_prediction(options.input, options.output, settings, home=options.home, overwrite=options.overwrite))
    done = predict_each(options.input, options.output, settings, home=options.home, overwrite=options.overwrite)
    return finish(_written(len(done.written), options.output), done.failures, of=len(done.written) + len(done.failures))


def _watch(options: Namespace, settings: PredictSettings) -> int:
    """Serves a folder until the command is interrupted, which is its regular end."""
    from ..pipeline import load_model
    from ..pipeline.watching import LOOK_SECONDS, Watch

    watch = Watch(load_model(None, settings, home=options.home), options.watch, options.output, options.overwrite)
    say(f"Watching {options.watch}; Ctrl-C ends it.")
    with suppress(KeyboardInterrupt):
        watch.serve(options.every or LOOK_SECONDS)
    result = f"Stopped watching {options.watch}. {_written(len(watch.written), options.output)}"
    failures = watch.incomplete | watch.failures
    return finish(result, failures, of=len(watch.written) + len(failures))


def _written(count: int, output: Path) -> str:
    several = f"Segmentations of {cases(count)} are in {output}"
    return {0: "No segmentation was written", 1: f"The segmentation of 1 case is in {output}"}.get(count, several)


def _add_overlay_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("-i", "--input", type=Path, required=True, help="image, or folder of images (case_0000.nii.gz)")
    parser.add_argument("-p", "--prediction", type=Path, help="predicted label map, or folder of them")
    parser.add_argument("-r", "--reference", type=Path, help="reference label map, or folder of them")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the pictures; a file where there is one case")
    add_overwrite(parser)
    parser.add_argument("-d", "--dataset", help="dataset whose organ names, regions and CT windows to use (default: values are organs)")
    parser.add_argument("--format", default="png", help="png (default), pdf, svg or jpg")
    parser.add_argument("--channel", type=int, default=0, metavar="N", help="number of the channel that is drawn (default 0)")
    add_nifti_geometry(parser)
    parser.add_argument("--zoom", action="store_true", help="show the organs and their surroundings instead of whole slices")


@command(_add_overlay_arguments, "-i imagesTs -p out -o pictures -d 3", "-i scan.nii.gz -p out/scan.nii.gz -r reference.nii.gz -o scan.png")
def overlay(options: Namespace) -> int:
    """Draw label maps over their images.

    Three planes through the organs are shown in true proportions, the prediction filled, the reference dashed; files are matched by
    the names of their cases. The exit status is 1 if cases failed.
    """
    from ..report.overlays import OverlaySettings, describe_problems, draw_overlays, failures_in

    drawn, problems = draw_overlays(
        options.input,
        options.output,
        prediction=options.prediction,
        reference=options.reference,
        settings=OverlaySettings(**settings_given(options, OverlaySettings)),
        home=options.home,
        overwrite=options.overwrite,
    )
    if not drawn:
        raise ValueError("; ".join(describe_problems(problems)))
    failures = failures_in(problems)
    for line in describe_problems({case: reason for case, reason in problems.items() if case not in failures}):
        say(line)
    result = str(drawn[0]) if len(drawn) == 1 else f"{len(drawn)} pictures are in {options.output}"
    return finish(result, failures, of=len(drawn) + len(failures))
