"""What changes from step to step: weights, their moving average, the best of it so far, and the optimizer."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch

from clipedge.export.training.contrast import clamp_log_scale
from clipedge.export.training.optimizer import MAX_GRADIENT, adamw, no_moments
from clipedge.export.training.recipe import TrainingRecipe, ema_decay, learning_rate
from clipedge.export.training.scores import Score
from clipedge.export.training.state import Progress, Scored, State

__all__ = ["LOG_SCALE", "Learner"]

LOG_SCALE = "log_scale"  # the name of the parameter that is the logarithm of the logit scale


class Learner:
    """``parameters`` are trained, ``statistics`` are what a tower learns beside them (``batch_norms.py``), and
    ``averages``, of the names of both, follow them. ``best`` is a copy of the averages with the best score.
    ``undecayed``: parameters without weight decay, whatever their shape."""

    def __init__(
        self,
        parameters: Mapping[str, torch.Tensor],
        averages: Mapping[str, torch.Tensor],
        recipe: TrainingRecipe,
        scaler: torch.amp.GradScaler,
        statistics: Mapping[str, torch.Tensor] | None = None,
        undecayed: Collection[str] = (),
    ) -> None:
        self.learned = {**parameters, **(statistics or {})}
        self.parameters, self.averages, self.recipe, self.scaler = parameters, averages, recipe, scaler
        self.progress = Progress()
        self.best = self._copy()
        self.optimizer = adamw(parameters, recipe.rate, recipe.weight_decay, undecayed)

    def update(self, step: int) -> None:
        """Change the weights by the gradients that they have, and the averages by the weights."""
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), MAX_GRADIENT)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, self.recipe)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        clamp_log_scale(self.parameters[LOG_SCALE])
        with torch.no_grad():
            for name, average in self.averages.items():
                if average.is_floating_point():
                    average.lerp_(self.learned[name], 1 - ema_decay(step, self.recipe))
                else:  # a count
                    average.copy_(self.learned[name])

    def take(self, score: Score) -> None:
        """Note the score of the averages; the best so far are kept."""
        progress = self.progress
        scored = Scored(progress.step, score)
        progress.scores.append(scored)
        if progress.best is None or score.rank > progress.best.score.rank:
            progress.best, self.best = scored, self._copy()

    def tensors(self) -> dict[str, torch.Tensor]:
        """Everything that has to be kept, by name."""
        tensors = {f"weights.{name}": weight for name, weight in self.learned.items()}
        tensors |= {f"average.{name}": weight for name, weight in self.averages.items()}
        tensors |= {f"best.{name}": weight for name, weight in self.best.items()}
        for name, weight in self.parameters.items():
            moments = self.optimizer.state.get(weight) or no_moments(weight)
            tensors |= {f"optimizer.{name}.{key}": value for key, value in moments.items()}
        return tensors | {f"scaler.{key}": torch.tensor(value) for key, value in self.scaler.state_dict().items()}

    def restore(self, state: State) -> None:
        """Go back to what ``tensors`` gave."""
        tensors = state.tensors
        with torch.no_grad():
            for name, weight in self.learned.items():
                weight.copy_(tensors[f"weights.{name}"])
                self.averages[name].copy_(tensors[f"average.{name}"])
            for name, weight in self.parameters.items():
                if state.progress.step:
                    self.optimizer.state[weight] = {
                        # AdamW counts its steps on the CPU, wherever the weights are.
                        key: tensors[f"optimizer.{name}.{key}"].to(empty.device)
                        for key, empty in no_moments(weight).items()
                    }
        self.best = {name: tensors[f"best.{name}"] for name in self.best}
        self.scaler.load_state_dict({key: tensors[f"scaler.{key}"].item() for key in self.scaler.state_dict()})
        self.progress = state.progress

    def _copy(self) -> dict[str, torch.Tensor]:
        return {name: weight.detach().clone() for name, weight in self.averages.items()}
