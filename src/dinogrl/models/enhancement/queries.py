"""The state of a chain of relation steps, in the two ways in which the query can live through it.

A feature of C numbers is one channel at C positions, and every projection psi is a 1x1 convolution from one channel to L. The
relation f_ij = <psi_q(q)_i, psi_k(k)_j> / C is then affine in k_j, f_ij = a_i k_j + b_i, and so is everything that a step adds
to the query: the state of a chain is one or three numbers for each position, however large L is.

After the relation, the positive and the negative side go through output projections of their own, each with a batch norm, as in the
published code. With one projection for both, V M+ - V M- = V (M+ - M-) = V f, and the signs would be lost: plain linear attention.

Shapes: g chains side by side, one a granularity, the longest first; 2 directions (the gait feature is enhanced, the appearance
feature is); B clips; C positions; 2 signs. Parameters have S sets, S = all chains or 1 where the chains share them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dinogrl.models.enhancement.relation import RelationSums

MOMENTUM = 0.1
EPSILON = 1e-5


class Query(nn.Module):
    """The projections psi_q, psi_k, psi_v of S sets, and the interface of a chain's state."""

    def __init__(self, sets: int, channels: int) -> None:
        super().__init__()
        self.query_weight, self.query_bias = _start(sets, channels, fan_in=1), _start(sets, channels, fan_in=1)
        self.key_weight, self.key_bias = _start(sets, channels, fan_in=1), _start(sets, channels, fan_in=1)
        self.value_weight, self.value_bias = _start(sets, channels, fan_in=1), _start(sets, channels, fan_in=1)

    def begin(self, feature: Tensor) -> Tensor:
        """State (R,g,2,B,C) before the first stripe, of the features (g,2,B,C) to be enhanced."""
        raise NotImplementedError

    def relation(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """a and b, (g,2,B,C), of the relation f_ij = a_i k_j + b_i."""
        raise NotImplementedError

    def step(self, state: Tensor, sums: RelationSums, found: Tensor | None, step: int) -> Tensor:
        """State after a stripe. ``found``: the batch's :func:`moments`, or None to use the running ones."""
        raise NotImplementedError

    def end(self, feature: Tensor, state: Tensor) -> Tensor:
        """Enhanced features (g,2,B,C)."""
        raise NotImplementedError

    def remember(self, found: list[Tensor], values: int) -> None:
        """Bring the running statistics up to date with the moments of all steps, each taken over ``values`` values."""
        raise NotImplementedError


def _start(*shape: int, fan_in: int) -> nn.Parameter:
    """(S,2,...) as torch starts a convolution with this fan-in."""
    return nn.Parameter(torch.empty(shape[0], 2, *shape[1:]).uniform_(-(fan_in**-0.5), fan_in**-0.5))


def moments(sums: RelationSums) -> Tensor:
    """Over clips and positions: mean of sum1, mean of sum0, var(sum1), cov(sum1,sum0), var(sum0). (g,2,signs,5)

    Mean and variance of any linear map of the two sums follow from these five, so a batch norm behind it needs nothing else.
    """
    both = []
    for sum1, sum0 in ((sums.plus1, sums.plus0), (sums.minus1, sums.minus0)):
        mean1, mean0 = sum1.mean((2, 3)), sum0.mean((2, 3))
        d1, d0 = sum1 - mean1[..., None, None], sum0 - mean0[..., None, None]
        both.append(torch.stack([mean1, mean0, (d1 * d1).mean((2, 3)), (d1 * d0).mean((2, 3)), (d0 * d0).mean((2, 3))], dim=-1))
    return torch.stack(both, dim=2)


def _variance(weight1: Tensor, weight0: Tensor, found: Tensor) -> Tensor:
    """Variance of weight1 * sum1 + weight0 * sum0."""
    variance = weight1.square() * found[..., 2] + 2 * weight1 * weight0 * found[..., 3] + weight0.square() * found[..., 4]
    return variance.clamp_min(0)


class ReprojectedQuery(Query):
    """The published code: the state is the feature itself, projected again in every step. R = 1.

    q <- q + BN+(w+ (V M+)) - BN-(w- (V M-)), w: one vector of L each. The batch norms start at 0: the identity.
    """

    def __init__(self, sets: int, channels: int, steps: int, granularities: int) -> None:
        super().__init__(sets, channels)
        self.out_weight = _start(sets, 2, channels, fan_in=channels)  # (S,2,signs,L)
        self.out_bias = _start(sets, 2, fan_in=channels)
        self.gain = nn.Parameter(torch.zeros(sets, 2, 2))
        self.shift = nn.Parameter(torch.zeros(sets, 2, 2))
        self.running_mean: Tensor
        self.running_var: Tensor
        self.steps_seen: Tensor
        self.register_buffer("running_mean", torch.zeros(sets, 2, 2))
        self.register_buffer("running_var", torch.ones(sets, 2, 2))
        self.register_buffer("steps_seen", torch.zeros((), dtype=torch.long))

    def begin(self, feature: Tensor) -> Tensor:
        return feature[None]

    def relation(self, state: Tensor) -> tuple[Tensor, Tensor]:
        g, positions = state.shape[1], state.shape[-1]
        qw, qb = self.query_weight[:g].to(state), self.query_bias[:g].to(state)
        kw, kb = self.key_weight[:g].to(state) / positions, self.key_bias[:g].to(state) / positions
        query = state[0]
        a = _spread((qw * kw).sum(-1)) * query + _spread((qb * kw).sum(-1))
        b = _spread((qw * kb).sum(-1)) * query + _spread((qb * kb).sum(-1))
        return a, b

    def step(self, state: Tensor, sums: RelationSums, found: Tensor | None, step: int) -> Tensor:
        g = state.shape[1]
        weight1, weight0 = self._out_weights(g, state)
        bias = self.out_bias[:g].to(state)
        if found is None:
            mean, variance = self.running_mean[:g].to(state), self.running_var[:g].to(state)
        else:
            mean = weight1 * found[..., 0] + weight0 * found[..., 1] + bias
            variance = _variance(weight1, weight0, found)
        scale = self.gain[:g].to(state) * torch.rsqrt(variance + EPSILON)
        shift = self.shift[:g].to(state) + scale * (bias - mean)
        weight1, weight0 = scale * weight1, scale * weight0
        plus = _spread(weight1[..., 0]) * sums.plus1 + _spread(weight0[..., 0]) * sums.plus0 + _spread(shift[..., 0])
        minus = _spread(weight1[..., 1]) * sums.minus1 + _spread(weight0[..., 1]) * sums.minus0 + _spread(shift[..., 1])
        return state + (plus - minus)

    def end(self, feature: Tensor, state: Tensor) -> Tensor:
        return state[0]

    @torch.no_grad()
    def remember(self, found: list[Tensor], values: int) -> None:
        chains = len(found[0])
        # the order in which the published code walks: the shortest chain first, each from its first step to its last
        history = [(chain, m[chain]) for chain in reversed(range(chains)) for m in found if chain < len(m)]
        weight1, weight0 = self._out_weights(chains, found[0])
        weight1, weight0 = weight1.expand(chains, -1, -1), weight0.expand(chains, -1, -1)
        bias = self.out_bias.to(found[0]).expand(chains, -1, -1)
        unbiased = values / max(values - 1, 1)
        for chain, m in history:
            at = chain if len(self.running_mean) > 1 else 0
            mean = weight1[chain] * m[..., 0] + weight0[chain] * m[..., 1] + bias[chain]
            variance = _variance(weight1[chain], weight0[chain], m) * unbiased
            self.running_mean[at].lerp_(mean.to(self.running_mean), MOMENTUM)
            self.running_var[at].lerp_(variance.to(self.running_var), MOMENTUM)
        self.steps_seen += len(history)

    def _out_weights(self, g: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """What w+ and w- make of sum1 and sum0, (S,2,signs) each: their products with psi_v's weight and bias."""
        out = self.out_weight[:g].to(like)
        weight1 = (out * self.value_weight[:g].to(like)[:, :, None]).sum(-1)
        weight0 = (out * self.value_bias[:g].to(like)[:, :, None]).sum(-1)
        return weight1, weight0


class LatentQuery(Query):
    """The paper: the query is projected once (eq. 11) and updated in the latent space, stripe by stripe (eq. 12-15).

    Q_0 = psi_q(f), Q_s = Q_{s-1} + BN+(W+ (V M+)) - BN-(W- (V M-)), W: L x L. The last Q is projected back to one channel and,
    through a batch norm that starts at 0, added to the feature. A step adds to Q_i fixed vectors of L times the scalars sum1_i and
    sum0_i; all that is ever asked of Q_i are its products with psi_k's weight and bias (the relation's a and b) and with the
    projection back. These three numbers are the state, R = 3. Batch-norm statistics are kept for every step by itself.
    """

    def __init__(self, sets: int, channels: int, steps: int, granularities: int) -> None:
        super().__init__(sets, channels)
        self.mix = _start(sets, 2, channels, channels, fan_in=channels)  # W+ and W-, (S,2,signs,L,L)
        self.gain = nn.Parameter(torch.ones(sets, 2, 2, channels))
        self.shift = nn.Parameter(torch.zeros(sets, 2, 2, channels))
        self.back = _start(sets, channels, fan_in=channels)
        self.back_gain = nn.Parameter(torch.zeros(sets, 2))
        self.back_shift = nn.Parameter(torch.zeros(sets, 2))
        self.running: Tensor
        self.back_running: Tensor
        self.register_buffer("running", torch.tensor([0.0, 0, 1, 0, 1]).repeat(steps, granularities, 2, 2, 1))
        self.register_buffer("back_running", torch.tensor([0.0, 1]).repeat(granularities, 2, 1))

    def _readers(self, g: int, like: Tensor, positions: int) -> Tensor:
        """(S,2,3,L): the vectors whose products with Q are the state."""
        return torch.stack(
            [self.key_weight[:g].to(like) / positions, self.key_bias[:g].to(like) / positions, self.back[:g].to(like)], dim=2
        )

    def begin(self, feature: Tensor) -> Tensor:
        readers = self._readers(len(feature), feature, feature.shape[-1])
        of_weight = (readers * self.query_weight.to(feature)[:, :, None]).sum(-1).unbind(2)
        of_bias = (readers * self.query_bias.to(feature)[:, :, None]).sum(-1).unbind(2)
        return torch.stack([_spread(w) * feature + _spread(b) for w, b in zip(of_weight, of_bias, strict=True)])

    def relation(self, state: Tensor) -> tuple[Tensor, Tensor]:
        return state[0], state[1]

    def step(self, state: Tensor, sums: RelationSums, found: Tensor | None, step: int) -> Tensor:
        g = state.shape[1]
        if found is None:
            found = self.running[step, :g].to(state)
        mixed1, mixed0 = self._mixed(g, state)
        m1, m0 = found[..., 0], found[..., 1]
        scale = self.gain[:g].to(state) * torch.rsqrt(_variance(mixed1, mixed0, found[..., None, :]) + EPSILON)
        readers = self._readers(g, state, state.shape[-1])[:, :, None]  # (S,2,1,3,L)
        weight1 = (readers * (scale * mixed1)[..., None, :]).sum(-1)  # (g,2,signs,3)
        weight0 = (readers * (scale * mixed0)[..., None, :]).sum(-1)
        level = (readers * self.shift[:g].to(state)[..., None, :]).sum(-1)
        level = level - weight1 * m1[..., None] - weight0 * m0[..., None]
        plus = _outer(weight1[:, :, 0], sums.plus1) + _outer(weight0[:, :, 0], sums.plus0)
        minus = _outer(weight1[:, :, 1], sums.minus1) + _outer(weight0[:, :, 1], sums.minus0)
        return state + plus - minus + (level[:, :, 0] - level[:, :, 1]).permute(2, 0, 1)[..., None, None]

    def end(self, feature: Tensor, state: Tensor) -> Tensor:
        back = state[2]
        if self.training:
            mean, variance = back.mean((2, 3)), back.var((2, 3), correction=0)
            with torch.no_grad():
                values = back[0, 0].numel()
                unbiased = variance * values / max(values - 1, 1)
                self.back_running.lerp_(torch.stack([mean, unbiased], dim=-1).to(self.back_running), MOMENTUM)
        else:
            mean, variance = self.back_running.to(state).unbind(-1)
        scale = self.back_gain.to(state) * torch.rsqrt(variance + EPSILON)
        return feature + _spread(scale) * (back - _spread(mean)) + _spread(self.back_shift.to(state))

    @torch.no_grad()
    def remember(self, found: list[Tensor], values: int) -> None:
        for running, m in zip(self.running, found, strict=True):
            running[: len(m)].lerp_(m.to(running), MOMENTUM)

    def _mixed(self, g: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """W+ and W- of psi_v's weight and bias: the vectors that sum1 and sum0 multiply, (S,2,signs,L) each."""
        mix = self.mix[:g].to(like)
        mixed1 = (mix @ self.value_weight[:g].to(like)[:, :, None, :, None])[..., 0]
        mixed0 = (mix @ self.value_bias[:g].to(like)[:, :, None, :, None])[..., 0]
        return mixed1, mixed0


def _spread(numbers: Tensor) -> Tensor:
    """(g,2) -> (g,2,1,1), to go with (g,2,B,C)."""
    return numbers[..., None, None]


def _outer(weight: Tensor, sums: Tensor) -> Tensor:
    """(g,2,R) weights of sums (g,2,B,C) -> (R,g,2,B,C)"""
    return weight.permute(2, 0, 1)[..., None, None] * sums
