"""PBMGE: each stream's global feature is enhanced by the other stream's stripes (paper 3.3, equations 11-16)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from dinogrl.models.enhancement.queries import LatentQuery, Query, ReprojectedQuery, moments
from dinogrl.models.enhancement.relation import Keys, sort_keys


class LocalToGlobal(nn.Module):
    """Parts of both streams, (B,P,D) each, -> enhanced global features, (B,G,D) each, G granularities.

    A granularity of n stripes is a chain of n steps, from the top stripe to the bottom one; the query is the global part. The
    chains of all granularities and of both directions depend on nothing of each other and run side by side.

    stripes:       numbers of stripes in the parts' order (:func:`dinogrl.models.pooling.horizontal_stripes`).
    granularities: those of them that enhance.
    channels:      L, channels of the projections psi.
    shared:        one set of projections for all granularities (published code), or one each (paper).
    latent:        the query is projected once and lives in the latent space (paper), or is projected again in every step.

    Computed in float64 where the device has it: up to 16 dependent steps on features that nothing has normalised.
    ``read_keys`` prepares the stripes (N,2,B,D) for the relations; replace it by another form of :class:`Keys`.
    """

    read_keys: Callable[[Tensor], Keys]

    def __init__(
        self, stripes: Sequence[int], granularities: Sequence[int], channels: int, shared: bool = False, latent: bool = True
    ) -> None:
        super().__init__()
        self.chains = sorted(granularities, reverse=True)
        # buffers and not lists: a list as an index is copied to an accelerator in every step, which waits for all its work
        self.answer_order: Tensor
        self.register_buffer("answer_order", torch.tensor([self.chains.index(n) for n in granularities]), persistent=False)
        first_part = {n: sum(stripes[:i]) for i, n in enumerate(stripes)}
        steps = range(self.chains[0])
        # parts in the order of use: every step takes one stripe of each chain that is not at its end
        self.active = [sum(n > step for n in self.chains) for step in steps]
        uses = [first_part[n] + step for step in steps for n in self.chains[: self.active[step]]]
        self.parts: Tensor
        self.register_buffer("parts", torch.tensor(uses), persistent=False)
        kind = LatentQuery if latent else ReprojectedQuery
        self.read_keys = sort_keys
        self.query: Query = kind(1 if shared else len(self.chains), channels, len(self.active), len(self.chains))

    def forward(self, gait: Tensor, appearance: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(gait.device.type, enabled=False):
            gait_enhanced, appearance_enhanced = self._enhanced(torch.stack([gait, appearance])).to(gait.dtype)
        return gait_enhanced, appearance_enhanced

    def _enhanced(self, parts: Tensor) -> Tensor:
        """(2,B,P,D) -> (2,B,G,D)"""
        precise = parts.float() if parts.device.type == "mps" else parts.double()
        feature = precise[:, :, 0].expand(len(self.chains), -1, -1, -1)  # (g,2,B,D)
        # the stripes of the other stream, in the order of use: (uses,2,B,D)
        stripes = precise.flip(0)[:, :, self.parts].permute(2, 0, 1, 3)
        state, found, ended = self.query.begin(feature), [], []
        for step, keys in enumerate(self.read_keys(stripes).split(self.active)):
            active = self.active[step]
            if active < state.shape[1]:
                ended.append(state[:, active:])
                state = state[:, :active]
            sums = keys.signed_sums(*self.query.relation(state))
            if self.training:
                found.append(moments(sums))
            state = self.query.step(state, sums, found[-1] if self.training else None, step)
        if self.training:
            self.query.remember(found, values=feature[0, 0].numel())
        ended.append(state)
        enhanced = self.query.end(feature, torch.cat(ended[::-1], dim=1))
        return enhanced[self.answer_order].permute(1, 2, 0, 3)
