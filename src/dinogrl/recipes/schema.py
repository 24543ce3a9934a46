"""Every knob of a run: a typed field with a sentence under it. A recipe file (YAML) fills them in."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from dinogrl.config import Section


class Augment(Section):
    """Random changes of the training clips (paper, section 4.2; sizes from the published code)."""

    per: Literal["track", "frame"] = "track"
    """One draw a clip (the gait stays coherent), or one a frame, as the published code does."""
    crop_padding: int = Field(10, ge=0)
    """Black border in pixels, before a random crop back to the clip's size."""
    flip: float = Field(0.5, ge=0, le=1)
    """Probability of a horizontal flip."""
    pair_flip: float = Field(0.0, ge=0, le=1)
    """Probability that a pixel-aligned pair is flipped as a whole, on top of ``flip`` (published code, BUPTCampus)."""
    erase: float = Field(0.5, ge=0, le=1)
    """Probability of channel random erasing: a rectangle of 2-40 % of the area is filled with the field's mean colour."""
    visible_channel: Literal["none", "exchange", "adaptive-grey"] = "adaptive-grey"
    """Colour change of visible frames: one channel copied to all three, or CAJ's adaptive grey."""
    visible_channel_probability: float = Field(1.0, ge=0, le=1)
    """Probability, drawn once a clip, that the visible colour change is applied at all."""
    infrared_channel: Literal["none", "exchange", "adaptive-grey"] = "adaptive-grey"
    """Colour change of infrared frames."""


BrokenFrames = Literal["stop", "neighbour"]


class Data(Section):
    """How tracklets become clips."""

    layout: str = "auto"
    """Layout on disk: auto, hitsz-vcm, buptcampus, sysu-mm01, regdb, llcm, folder."""
    trial: int = Field(1, ge=1)
    """Which split of a dataset that has several (RegDB: 1 to 10; published numbers are means over ten models, one a split)."""
    height: int = Field(256, ge=16)
    """Height of a frame in pixels."""
    width: int = Field(128, ge=8)
    """Width of a frame in pixels."""
    frames: int = Field(6, ge=1)
    """T, frames of a clip."""
    min_frames: int = Field(12, ge=1)
    """Shorter tracklets are left out (HITSZ-VCM only; MITML's filter)."""
    discard_train: str | None = None
    """File with paths of training frames to leave out (the authors' own lists are not published)."""
    discard_test: str | None = None
    """File with paths of test frames to leave out."""
    masks: str | None = None
    """Folder with a parser's masks, a grey .png for each frame under the frame's own name; a relative path begins at the dataset's
    root. The gait stream reads them with ``model.gait.silhouette: masks``."""
    broken_frames: BrokenFrames = "stop"
    """What an unreadable frame does: stop the run, or be replaced by the nearest readable frame and counted."""
    workers: int = Field(2, ge=0)
    """Loader processes; 0 loads in the main process."""
    augment: Augment = Augment()

    def with_broken_frames(self, choice: BrokenFrames | None) -> Data:
        """The same, with another :attr:`broken_frames`, unless ``choice`` is None."""
        return self if choice is None else self.model_copy(update={"broken_frames": choice})


class Appearance(Section):
    """The appearance stream: AGW's two-stream ResNet (paper 3.1)."""

    depths: tuple[int, int, int, int] = (3, 4, 6, 3)
    """Bottleneck blocks of the four layers; (3,4,6,3) is ResNet-50."""
    width: int = Field(64, ge=4)
    """Channels of the stem; the four layers have 4, 8, 16 and 32 times as many."""
    stem_relu: bool = True
    """ReLU after the stem's batch norm, as in AGW; the published code leaves it out."""
    non_local: tuple[int, int, int, int] = (0, 0, 0, 0)
    """AGW's non-local blocks after the last blocks of each layer; AGW has (0,2,3,0), the published code none."""
    weights: str | None = None
    """ImageNet ResNet weights in torchvision's names: a .pth or .safetensors file."""


class PriorShape(Section):
    """Size of a prior of one's own."""

    family: Literal["dinov2", "dinov3"] = "dinov2"
    """DINOv2 has patches of 14 pixels and a table of positions; DINOv3 patches of 16 and rotary positions."""
    width: int = Field(ge=8)
    """D, width of a token."""
    depth: int = Field(ge=1)
    """Number of blocks."""
    heads: int = Field(ge=1)
    """Attention heads; they divide the width."""
    positions: int = Field(16, ge=1)
    """Side of the square grid of its position table, in patches."""
    registers: int = Field(0, ge=0)
    """Register tokens."""
    mlp: float = Field(4.0, gt=0)
    """Width of the MLP over that of a token (of DINOv2's gated one before its gate, two thirds of it after)."""
    gated: bool = False
    """SwiGLU in the MLP, as the largest sizes have it."""

    @model_validator(mode="after")
    def _whole_heads(self) -> PriorShape:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of heads {self.heads}")
        return self


class Lora(Section):
    """Adapters on the last blocks of the prior, which then learn; all else of it stays frozen."""

    blocks: int = Field(2, ge=1)
    """How many of the last blocks."""
    rank: int = Field(8, ge=1)
    """Rank of each update."""
    alpha: float = Field(16.0, gt=0)
    """The update is scaled by alpha / rank."""
    layers: tuple[Literal["query", "key", "value", "output", "mlp"], ...] = Field(("query", "value"), min_length=1)
    """Which linear maps of a block."""


class Prior(Section):
    """The frozen DINOv2 (or DINOv3) and what is read from it."""

    name: str = "dinov2_vits14"
    """dinov2_vits14, _vitb14, _vitl14, _vitg14 (each also with _reg); dinov3_vits16, _vits16plus, _vitb16, _vitl16, _vith16plus;
    or tiny: the one inside this package."""
    shape: PriorShape | None = None
    """Another size than the name's."""
    weights: str | None = None
    """Official .pth, .safetensors, a Hugging Face directory (its config.json then gives the size) or hub name. None:
    $DINOGRL_DINOV2 ($DINOGRL_DINOV3), else the hub's own weights. ``checkpoint``: none at the start, a checkpoint brings them."""
    height: int = Field(448, ge=14)
    """Frames are resized to this height (pixels, a multiple of the patch: 14, of DINOv3 16)."""
    width: int = Field(224, ge=14)
    """... and this width."""
    blocks: tuple[int, ...] = (2, 5, 8, 11)
    """Blocks, counted from 0, whose outputs are concatenated for the two priors (eq. 6)."""
    positions: Literal["size", "scale"] = "size"
    """Position table resampled to the exact grid, or by DINOv2's own ratio (patches + 0.1) / grid, as in the published code."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the frozen network. ``auto`` follows autocast: bfloat16 where training or evaluation runs in it."""
    lora: Lora | None = None
    """Adapters that let the last blocks learn; null keeps the prior frozen."""
    random_init: bool = False
    """Leave the prior as its constructor made it (tests)."""

    @property
    def family(self) -> str:
        """dinov2 or dinov3, as the shape or the name says."""
        named = "dinov3" if self.name.startswith("dinov3") else "dinov2"
        return named if self.shape is None else self.shape.family

    @model_validator(mode="after")
    def _whole_patches(self) -> Prior:
        patch = 16 if self.family == "dinov3" else 14
        if self.height % patch or self.width % patch:
            raise ValueError(f"prior size {self.height}x{self.width} must be multiples of the patch size {patch}")
        return self


class Gait(Section):
    """The gait stream: SASGL (paper 3.2)."""

    prior: Prior = Prior()
    silhouette: Literal["enriched", "plain", "masks"] = "enriched"
    """``enriched``: silhouette times fused priors (eq. 6). ``plain``: the silhouette alone (table 3's second row). ``masks``: those
    of a human parser, from ``data.masks``, and no prior at all (table 7)."""
    priors: tuple[Literal["gait", "appearance"], ...] = Field(("gait", "appearance"), min_length=1)
    """Which priors enrich the silhouette (table 5); none is ``silhouette: plain``."""
    channels: int = Field(16, ge=1)
    """Channels of each prior."""
    map_height: int = Field(64, ge=4)
    """Height of the maps that the gait network reads."""
    map_width: int = Field(32, ge=4)
    """Width of those maps."""
    embed: int = Field(64, ge=4)
    """Channels after the maps' own small convolutions, before fusion."""
    depths: tuple[int, int, int, int] = (3, 4, 6, 3)
    """Bottleneck blocks of the gait network's four layers."""
    width: int = Field(64, ge=4)
    """Stem-equivalent width of the gait network; layers have 4, 8, 16 and 32 times as many channels."""
    mask_dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the tokens before the silhouette's batch norm; the published code has 0.5."""
    mask_start: str = "centre"
    """Start of E_m: ``centre`` (what tells the middle of the first clips' frames from their sides), ``random``, or a file."""
    multiply: bool = True
    """Multiply the fused priors by the soft silhouette (eq. 6). The published code does not."""
    foreground_only: bool = False
    """Evaluate the priors on foreground pixels only and set the rest to 0, as the published code does."""
    joint: bool = True
    """Joint learning (eq. 9-10): re-identification losses reach E_m. The published code detaches the silhouette."""
    joint_priors: bool = True
    """... and reach E_g and E_a (table 6 without joint learning: both switches off)."""
    drop_prior: float = Field(0.0, ge=0, le=1)
    """Share of the clips of a training batch that lose one of the two priors; 0.2 in the published code."""
    weights: str | None = None
    """ImageNet ResNet weights for the gait network's layers."""


class Pooling(Section):
    """Set pooling over time, horizontal stripes, one linear map a part."""

    stripes: tuple[int, ...] = (1, 2, 4, 8, 16)
    """Numbers of horizontal stripes; 1 is the global feature and must come first."""
    width: int = Field(256, ge=4)
    """D, width of a part vector."""
    start: Literal["part", "whole"] = "part"
    """Start of the parts' linear maps and classifiers: by the size of one part, or, as published, by that of the tensor of all
    parts, some 16 times smaller."""

    @model_validator(mode="after")
    def _global_first(self) -> Pooling:
        if not self.stripes or self.stripes[0] != 1 or min(self.stripes) < 1:
            raise ValueError("stripes must be numbers from 1 on and start with 1, the global part")
        return self


class Enhancement(Section):
    """How each stream's global feature is enhanced by the other's stripes: PBMGE (paper 3.3), or an alternative of table 9."""

    name: str = "local_to_global"
    """local_to_global (PBMGE), or none, non_local, attention_fusion, cross_non_local (IBAN), shape_guided (SCRL), ms_g3d."""
    granularities: tuple[int, ...] = Field((2, 4, 8, 16), min_length=1)
    """Stripes that enhance, each by a chain or block of its own (table 8)."""
    channels: int = Field(256, ge=1)
    """local_to_global: channels of the projections psi."""
    shared: bool = False
    """local_to_global: one set of projections for all granularities (published code), or one each (paper)."""
    latent: bool = True
    """local_to_global: project the query once and update it in the latent space (eq. 11), or in every step (published code)."""
    relation: Literal["dot_product", "embedded_gaussian"] = "dot_product"
    """non_local: dot product over the number of positions, as in AGW, or softmax, as in its first paper."""

    @field_validator("granularities")
    @classmethod
    def _each_once(cls, granularities: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(granularities)) < len(granularities):
            raise ValueError("a granularity is named twice")
        return granularities


class Model(Section):
    """The network."""

    appearance: Appearance = Appearance()
    gait: Gait | None = Gait()
    """null leaves the gait stream out: the baseline."""
    pooling: Pooling = Pooling()
    enhancement: Enhancement | None = Enhancement()
    """null leaves PBMGE out."""
    supervise: Literal["all", "global"] = "global"
    """Parts under the losses: the global ones (plain and enhanced, N_s = 5 a stream, eq. 17), or all, as the published code."""
    embed: Literal["all", "supervised"] = "supervised"
    """Parts that make the embedding. The paper is silent; a part that no loss looks at is no feature to compare by."""

    @model_validator(mode="after")
    def _consistent(self) -> Model:
        if self.enhancement is not None and self.gait is None:
            raise ValueError("enhancement needs the gait stream: set model.gait, or model.enhancement=null")
        if self.enhancement is not None:
            missing = sorted(set(self.enhancement.granularities) - set(self.pooling.stripes))
            if missing:
                raise ValueError(f"enhancement.granularities {missing} are not among pooling.stripes {list(self.pooling.stripes)}")
        return self


class Objective(Section):
    """The weighted sum of the losses (eq. 17, 18)."""

    identity: float = Field(1.0, ge=0)
    """Weight of cross-entropy (eq. 2)."""
    triplet: float = Field(1.0, ge=0)
    """Weight of the triplet loss (eq. 3)."""
    mask: float = Field(1.0, ge=0)
    """lambda 1: reconstruction of the frozen tokens (eq. 5)."""
    smoothness: float = Field(0.02, ge=0)
    """lambda 2: smoothness of the gait prior (eq. 7)."""
    mask_smoothness: float = Field(0.0, ge=0)
    """Weight of the published code's smoothness of the mask (0.02 there; not in the paper)."""
    diversity: float = Field(5.0, ge=0)
    """lambda 3: diversity of the gait prior (eq. 8)."""
    margin: float = Field(0.2, ge=0)
    """Margin of the triplet loss; the paper does not give it."""
    triplet_distance: Literal["euclidean", "squared"] = "squared"
    """The paper's equation 3 squares the distance, the published code does not."""
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    """Label smoothing of the cross-entropy."""
    logit_scale: float = Field(16.0, gt=0)
    """Scale of the cosine logits."""
    smoothness_form: Literal["paper", "released"] = "paper"
    """How eq. 7 is read: per channel, or channels summed before the absolute value and one channel left out."""
    diversity_form: Literal["paper", "released"] = "paper"
    """How eq. 8 is read: natural logarithm, or base 2 with a small constant."""


class Batch(Section):
    """Who is in a training batch."""

    identities: int = Field(8, ge=2)
    """Identities a batch."""
    clips: int = Field(4, ge=1)
    """Clips of each identity in each modality."""
    accumulate: int = Field(1, ge=1)
    """Batches before the optimiser steps; by the mean of their gradients. Triplets and batch norms see one batch at a time."""


class Training(Section):
    """The optimisation."""

    epochs: int = Field(200, ge=1)
    steps_per_epoch: int | None = Field(None, ge=1)
    """Optimiser steps an epoch; None goes once through the identities' tracklets."""
    batch: Batch = Batch()
    optimiser: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: float = Field(3.5e-4, gt=0)
    weight_decay: float = Field(5e-4, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    """Of SGD."""
    warmup_epochs: int = Field(10, ge=0)
    """Epochs of linear warm-up ..."""
    warmup_start: float = Field(0.01, gt=0, le=1)
    """... from this share of the learning rate."""
    milestones: tuple[PositiveInt, ...] = (35, 80)
    """Epochs at which the learning rate falls to a tenth."""
    schedule: Literal["steps", "cosine"] = "steps"
    """Fall by steps at the milestones (paper), or along a cosine to zero (short runs)."""
    clip_gradient: float | None = Field(None, gt=0)
    """Largest norm of the gradient."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """``auto`` takes bfloat16 autocast where the device multiplies it faster."""
    compile: bool = False
    """torch.compile the ResNets (long runs on a GPU: the first step takes minutes; on a CPU it gains little)."""
    recompute: bool = False
    """Compute the largest activations (ResNets, gait prior) again in the backward pass: half the memory, a third slower."""
    device: str = "auto"
    checkpoint_minutes: float = Field(10.0, ge=0)
    """A checkpoint at least this often, and after every epoch."""
    selection: Literal["last", "holdout"] = "last"
    """Which model is kept: the last epoch's, or the best on held-out training identities. Never on the test set."""
    holdout: float = Field(0.1, ge=0, lt=1)
    """Share of the training identities held out when selection is ``holdout``."""
    holdout_every: int = Field(10, ge=1)
    """Epochs between two looks at the held-out identities."""
    search_tracklets: int = Field(2000, ge=0)
    """Training tracklets embedded at the end, to learn what searching a gallery needs (docs/gallery.md); 0 leaves it out."""


class Evaluation(Section):
    """The test."""

    protocol: str = "auto"
    """Named protocol; auto takes the dataset's own."""
    distance: Literal["mean_part", "euclidean", "cosine"] = "mean_part"
    """mean over parts of the Euclidean distance (published), of the concatenated vectors, or cosine."""
    batch: int = Field(32, ge=1)
    """Clips embedded at once."""
    precision: Literal["auto", "float32", "bfloat16"] = "float32"


class Recipe(Section):
    """A whole run."""

    name: str
    """Name of the recipe, written into every result."""
    preset: str = "full"
    """Size of the network and of the run: full is the paper's."""
    seed: int = Field(1, ge=0, lt=2**64)
    data: Data = Data()
    model: Model = Model()
    objective: Objective = Objective()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()

    @model_validator(mode="after")
    def _masks_for_who_reads_them(self) -> Recipe:
        if self.model.gait is not None and (self.model.gait.silhouette == "masks") != (self.data.masks is not None):
            raise ValueError("data.masks (a folder of masks) and model.gait.silhouette=masks go together: set both or neither")
        return self
