"""A network so small that whole runs fit into tests; the very same classes."""

TINY = [
    "data.workers=0",
    "data.frames=2",
    "data.height=64",
    "data.width=32",
    "model.appearance={depths: [1, 1, 1, 1], width: 4}",
    "model.gait.width=4",
    "model.gait.embed=8",
    "model.gait.channels=4",
    "model.gait.map_height=16",
    "model.gait.map_width=8",
    "model.gait.prior={shape: {width: 24, depth: 4, heads: 2}, height: 112, width: 56, blocks: [1, 3], random_init: true}",
    "model.pooling={stripes: [1, 2], width: 8}",
    "model.enhancement={granularities: [2], channels: 8}",
    "training.batch={identities: 2, clips: 2}",
    "training.epochs=1",
    "training.steps_per_epoch=2",
    "training.precision=float32",
    "training.device=cpu",
]
