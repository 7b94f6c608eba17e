"""Which trained models predict: the chosen ones, made anew where models are newer, or the one that a user names; loaded as an ensemble."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..data.descriptions import planned_dataset
from ..data.label_subsets import label_conflict
from ..inference.ensemble import Ensemble, check_channels
from ..inference.postprocessing import forced
from ..inference.trained_model import InferenceOptions, ModelCache, TrainedModel, load_model
from ..runtime.case_contents import in_words
from ..runtime.hardware import choose_device, prepare_device, return_freed_memory
from ..runtime.registry import allows_code, unknown_name_error
from ..runtime.runs import ModelFolder, model_folders
from ..runtime.serialization import read_json
from ..runtime.workspace import Workspace
from ..schema import Choice
from ..schema.settings import PredictSettings
from ..selection.cheaper_ways import is_mirroring_worth_it, known_losses
from ..selection.stored_scores import not_in_choice, validated_folds, voting_folds
from ..trainers.corrected_references import corrected_since
from .choosing import choose_again
from .fast_prediction import fast_models, fast_options
from .model_source import ModelSource

log = logging.getLogger(__name__)


@allows_code()
def load_ensemble(source: ModelSource, settings: PredictSettings) -> Ensemble:
    """Loads what the choice (or the user) names; makes the choice first where models were trained after it.

    Raises:
        ValueError: The wanted model or folds are not trained.
    """
    return ensemble_of(source, models_chosen(source, settings.model), settings)


def ensemble_of(source: ModelSource, choice: Choice, settings: PredictSettings) -> Ensemble:
    """Loads the models of a choice as the settings ask for, which may vote, or have other post-processing.

    Raises:
        ValueError: As of `chosen_ensemble`.
    """
    if settings.fast:
        choice = fast_models(choice, source.results)
    choice = replace(choice, vote=choice.vote or settings.vote)
    if settings.postprocess:
        choice = replace(choice, postprocessing=forced(settings.postprocess, source.plan.labels, choice.postprocessing))
    return chosen_ensemble(source, choice, replace(settings, folds=settings.folds or source.folds))


def chosen_ensemble(
    source: ModelSource, choice: Choice, settings: PredictSettings, *, stage_folds: tuple[str, ...] | None = None
) -> Ensemble:
    """Loads the models of a choice; `stage_folds` are those of cascades' first stages, None means all.

    Raises:
        ValueError: One of them or a fold of it is not trained, or they do not fit the dataset's plan.
    """
    device = choose_device(settings.device)
    low_memory = settings.low_memory or (settings.max_memory is not None and device.type == "cpu")
    if not low_memory:  # it keeps freed memory, and tries convolutions that need more
        prepare_device(device)
    elif settings.max_memory is not None:
        return_freed_memory()
    root = source.results
    members = sorted({name for names in choice.organs.values() for name in names})
    first, step = settings.step if isinstance(settings.step, tuple) else (None, settings.step)
    options = InferenceOptions(step=step, first_step=first, stage_folds=stage_folds, low_memory=low_memory)
    options = replace(options, max_memory=settings.max_memory)
    folds = {name: tuple(settings.folds or choice.member_folds.get(name) or choice.folds) for name in members}
    loaded: ModelCache = {}  # a cascade's first stage may be a member as well
    of_members = {name: replace(options, folds=folds[name], mirror=_mirrors(settings, choice, root, name)) for name in members}
    if settings.fast:
        of_members = {name: fast_options(one, choice, root, name) for name, one in of_members.items()}
    models = {name: load_model(root / name, device, one, loaded=loaded) for name, one in of_members.items()}
    check_channels(models, source.plan)
    labels = source.plan.labels
    without = [organ for organ in labels.names if organ not in choice.organs]
    if without:
        log.warning("%s: not segmented by these models, background in the results.", ", ".join(without))
    fold_models: dict[str, tuple[TrainedModel, ...]] = {}
    if settings.uncertainty or choice.vote:
        alone = {name: [replace(of_members[name], folds=(fold,)) for fold in folds[name]] for name in members if len(folds[name]) > 1}
        fold_models = {name: tuple(load_model(root / name, device, one, loaded=loaded) for one in some) for name, some in alone.items()}
    return Ensemble(choice, models, labels, fold_models)


def _mirrors(settings: PredictSettings, choice: Choice, results: Path, model: str) -> bool:
    """Whether a model averages mirrored copies: as asked, else where it was worth it on all of its held-out cases."""
    if settings.mirror is not None:
        return settings.mirror
    return is_mirroring_worth_it(known_losses(choice, results, model, ModelFolder(results / model).trained_folds()))


def models_chosen(source: ModelSource, model: str | None = None) -> Choice:
    """The choice among the trained models, made anew where models were validated after it; or `model` for all of its organs.

    Raises:
        ValueError: There is no such model, or none to choose from.
    """
    if (choice := present_choice(source, model)) is not None:
        return choice
    log.info("Choosing the best configuration for each organ of %s first.", source.name)
    return choose_again(source.name, home=source.home)


def present_choice(source: ModelSource, model: str | None = None) -> Choice | None:
    """As `models_chosen`; None where the choice must be made anew first, for which the log says why."""
    path, model = source.results / "choice.json", source.model or model
    trained = {one.name: one for one in ([ModelFolder(source.results / source.model)] if source.model else model_folders(source.results))}
    if model is None and path.is_file():
        choice = read_json(path, Choice)
        _check_members(choice, trained, path)
        newer = not_in_choice(choice, path.parent, validated_folds(path.parent)) if source.planned_home else []
        gone = [organ for organ in choice.organs if organ not in source.plan.labels.names]
        if not newer and not gone:
            if source.workspace is not None:
                _warn_of_corrections(source.workspace, source.name, path)
            return choice
        if newer:
            log.info("%s was made before these were validated: %s", path, ", ".join(newer))
        if gone:
            log.warning("%s was made for organs that the dataset no longer has: %s", path, ", ".join(gone))
    if model is None and source.planned_home is not None:
        return None
    if model is None and len(trained) > 1:
        raise ValueError(f"{path}: not there, and neither is the data to make it from. Say with -c which model: {', '.join(trained)}")
    return _choice_of_one(source, trained, model)


def _choice_of_one(source: ModelSource, trained: Mapping[str, ModelFolder], model: str | None) -> Choice:
    """A model for all of its organs: the one that a user means, or None for the only one."""
    labels = source.plan.labels
    organs = {name: folder.labels(labels).names for name, folder in trained.items()}
    name = next(iter(trained)) if model is None else _model_meant(model, organs)
    folds = voting_folds(trained[name].trained_folds())
    if reason := label_conflict(trained[name].labels(labels), labels):
        raise ValueError(f"{name}: does not fit the organs of {source.name}: {reason}; train it again")
    known = [organ for organ in labels.names if organ in organs[name]]
    if unknown := [organ for organ in organs[name] if organ not in known]:
        log.warning("%s segments what is no organ of %s any more, and is left out: %s", name, source.name, ", ".join(unknown))
    return Choice(dict.fromkeys(known, (name,)), folds, {}, 0, rule="the only one" if model is None else "as asked")


def _warn_of_corrections(workspace: Workspace, dataset: str, choice: Path) -> None:
    """Says of which cases a choice judged models by images or label maps that were corrected since."""
    if dataset in workspace.descriptions():
        cases = planned_dataset(workspace, dataset).cases
        if changed := corrected_since(choice.parent, validated_folds(choice.parent), cases):
            again = f"autoseg_find_best_configuration {dataset}"
            log.warning("%s was made with former contents of %s; choose again: %s", choice, in_words(changed), again)


def _check_members(choice: Choice, trained: Mapping[str, ModelFolder], path: Path) -> None:
    """Refuses (ValueError) a choice of models or folds that are not there any more, or of no model at all."""
    if not choice.organs:
        raise ValueError(f"{path}: expected a model for at least one organ, found none; remove the file to choose again")
    for organ, members in choice.organs.items():
        if not members:
            raise ValueError(f"{path}: expected a model for {organ}, found none; remove the file to choose again")
        for name in members:
            folds, there = choice.member_folds.get(name) or choice.folds, trained[name].trained_folds() if name in trained else []
            if lacking := [fold for fold in folds if fold not in there] if name in trained else [name]:
                what = f"fold {', '.join(lacking)} of {name}" if name in trained else name
                raise ValueError(f"{path}: {what}, chosen for {organ}, is not there; copy it back, or remove the file to choose again")


def _model_meant(model: str, organs: Mapping[str, Sequence[str]]) -> str:
    """The model folder that a user means by its name or its configuration's; of several of one configuration the one of most organs.

    Raises:
        ValueError: There is none, or several have as many organs; the message lists them.
    """
    if model in organs:
        return model
    fitting = [name for name in organs if ModelFolder(Path(name)).configuration == model]
    most = max((len(organs[name]) for name in fitting), default=0)
    largest = [name for name in fitting if len(organs[name]) == most]
    if len(largest) != 1:
        raise unknown_name_error("model", model, largest or organs)
    return largest[0]
