"""What the simulated server has installed, loaded and to say."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from . import catalogue, clock, gojson, schema, text
from .account import FakeAccount
from .catalogue import FakeModel
from .gojson import RefusalError

Answer = Callable[[str], str]


@dataclass(slots=True)
class World:
    """The state behind the answers; other threads only put new objects in place of old ones."""

    models: dict[str, FakeModel]
    answer: Answer | None = None
    """From a prompt to an answer; None: the simulator's own text."""
    rate: float | None = None
    """Tokens a second; None: at once."""
    version: str = "0.24.0"
    account: FakeAccount | None = None
    expiry: dict[str, float] = field(default_factory=dict)
    """When each loaded model will be unloaded, in seconds since the epoch."""

    def find(self, name: str) -> FakeModel:
        """Return an installed model.

        Raises:
            RefusalError: 400 for a name that cannot be one, 404 for a model that is not there.
        """
        if name and not catalogue.valid_name(name):
            raise RefusalError(400, "invalid model name")
        model = self.models.get(catalogue.find_key(name))
        if model is None:
            raise RefusalError(404, f"model '{name}' not found")
        return model

    def load(self, model: FakeModel, seconds: float) -> None:
        """Hold a model in memory for so long; 0 puts it out."""
        if seconds == 0:
            self.expiry.pop(model.name, None)
        else:
            self.expiry[model.name] = time.time() + seconds

    def loaded(self) -> list[dict[str, object]]:
        """Return the rows of `/api/ps`, longest remaining first."""
        now = time.time()
        left = sorted(self.expiry.items(), key=lambda item: item[1], reverse=True)
        models = {model.name: model for model in self.models.values()}
        there = [(models[name], end) for name, end in left if end > now and name in models]
        return [catalogue.loaded(model, clock.stamp(end)) for model, end in there]

    def say(self, prompt: str, wish: object) -> str:
        """Return the answer's text; a wished format shapes the simulator's own text only."""
        if self.answer is not None:
            return self.answer(prompt)
        own = text.friendly(prompt)
        if schema.is_schema(wish):
            return gojson.dump(schema.sample(wish, wish)).decode()
        return gojson.dump({"answer": own}).decode() if wish else own
