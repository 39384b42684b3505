"""What `guardtrain COMMAND --help` begins with: command lines, and the settings that most of its users change."""

from __future__ import annotations

EXAMPLES: dict[str, list[str]] = {
    "curve": [
        "guardtrain curve                                        # the embedded scenes, a minute on a laptop",
        "guardtrain curve head=mlp grid.seeds=10",
        "guardtrain curve experiment=masks data_dir=PATH         # real features, real counterfactual pairs",
        "guardtrain curve data=manifest data.real.path=real.csv data.pairs.path=pairs.csv encoder=openai_vit_b32",
    ],
    "train": [
        "guardtrain train mixture.budget=512 mixture.ratio=0.5",
        "guardtrain train data=manifest data.real.path=real.csv data.pairs.path=pairs.csv encoder=openai_vit_b32",
        "guardtrain train head=mlp selection=cross_validation logger=wandb",
    ],
    "tune": [
        "guardtrain tune mixture.budget=512                      # loss.l2, by cross-validation inside the budget",
        "guardtrain tune head=mlp 'space={head.hidden: [[64],[256,64]]}' trials=128 batch=32",
        "guardtrain tune 'space={mixture.ratio: [0,0.25,0.5]}' metric=pair_both_right jobs=2",
        "guardtrain tune 'space={head: [linear,mlp], head.dropout: {low: 0, high: 0.5, when: {head: mlp}}}'",
    ],
    "finetune": [
        "guardtrain finetune mixture.budget=512 mixture.ratio=0.5",
        "guardtrain finetune -m experiment=perspectivevision_lora mixture.seed=0,1,2",
        "guardtrain finetune data=unsafebench encoder=openai_vit_b32 lora=clip_lora mixture.ratio=0",
    ],
    "export": [
        "guardtrain export run=outputs/train/scenes",
        "guardtrain export run=outputs/train/scenes '+points.high={kind: recall, target: 0.95}'",
        "guardtrain export run=outputs/train/scenes review.enabled=true neighbours=true whole=true",
        "guardtrain export run=outputs/curve/scenes pick.metric=auroc pick.best=setting out=guards/scenes",
    ],
    "import-guard": [
        "guardtrain import-guard q16 prompts_ViT-B-32.p                       # → guards/q16",
        "guardtrain import-guard multiheaded checkpoints/multi-headed out=guards/multiheaded",
        "guardtrain import-guard laion_nsfw clip_ViT-B-32_openai_binary_nsfw_head.pth",
        "guardtrain import-guard nudenet                                      # its file comes with the package",
        "guardtrain import-guard state_dict head.pth encoder=openai_vit_l14 'kind.layers=[{linear: fc}]'",
        "guardtrain import-guard sklearn head.skops kind.unsafe=nsfw          # where the classes' names do not say it",
    ],
    "calibrate": [
        "guardtrain calibrate guard=guards/q16 data=photos.csv                 # → guards/q16-calibrated",
        "guardtrain calibrate guard=org/name data=photos out=mine '+points.high={kind: recall, target: 0.95}'",
    ],
    "push": [
        "guardtrain push guard=outputs/train/scenes/guard repo=org/name",
        "guardtrain push guard=outputs/finetune/scenes/guard repo=org/name weights=true   # with the tuned encoder",
    ],
    "attack": [
        "guardtrain attack guards=[outputs/train/scenes/guard] samples=100",
        "guardtrain attack guards=[mine,theirs] data=manifest data.real.path=a.csv data.pairs.path=b.csv",
        "guardtrain attack guards=[mine] attacks=[jpeg,resize,crop] jpeg=[90,50] point=strict",
    ],
    "benchmark": [
        "guardtrain benchmark guards=[outputs/guard,guards/q16,guards/laion-nsfw] data=mine.csv",
        "guardtrain benchmark guards=[outputs/guard,org/name] data=[unsafebench,photos] compare_with=mine",
        "guardtrain benchmark 'guards=[outputs/guard,{scores: theirs.csv}]' data=mine.csv  # columns: id, score",
        "guardtrain benchmark guards=[mine] data=photos vlm=openai_compatible vlm.model=NAME vlm.base_url=URL",
        "guardtrain benchmark guards=[outputs/guard] 'data={theirs: {path: other.csv, columns: {label: unsafe}}}'",
    ],
    "embed": [
        "guardtrain embed source=image_folder source.root=photos out=stores/photos encoder=openai_vit_b32",
        "guardtrain embed source=manifest source.path=records.csv out=stores/mine",
    ],
    "store": [
        "guardtrain store info path=stores/photos",
        "guardtrain store verify path=stores/photos             # exit code 2 if anything is wrong",
        "guardtrain store append path=stores/photos source=manifest source.path=more.csv",
        "guardtrain store merge 'paths=[stores/a,stores/b]' out=stores/ab",
        "guardtrain store filter path=stores/ab 'where={category: fire}' halves=complete out=stores/fire",
        "guardtrain store filter path=stores/ab split=test out=test.parquet   # a record table, no new store",
        "guardtrain store dedup path=stores/ab out=stores/distinct",
    ],
    "plot": [
        "guardtrain plot results=outputs/curve/scenes",
        "guardtrain plot results=outputs/curve/scenes 'plot.panels=[{test: counterfactual, metric: auroc}]'",
        "guardtrain plot results=outputs/curve/scenes plot=paper plot.width=3.3",
    ],
    "results": [
        "guardtrain results                                      # all that is under outputs",
        "guardtrain results outputs/train metric=pair_both_right 'where={head: mlp}'",
        "guardtrain results sweeps outputs/curve test=in_domain out=table.md",
        "guardtrain results outputs/tune test=validation metric=log_loss out=trials.csv",
    ],
    "plan": [
        "guardtrain plan                                         # a difference of .02, on the scenes",
        "guardtrain plan results=outputs/curve/scenes difference=0.01 metric=pair_both_right",
    ],
    "audit": [
        "guardtrain audit                                        # the embedded scenes",
        "guardtrain audit data=masks encoder=precomputed data_dir=PATH",
    ],
    "predict": [
        "guardtrain predict guard=outputs/guard photo.png                    # → the answer",
        "guardtrain predict guard=outputs/guard photos out=scored.csv        # or .parquet, .jsonl: a table",
        "guardtrain predict guard=outputs/guard point=strict out=- 'photos/*.jpg' | jq .decision",
        "guardtrain predict guard=outputs/guard inputs=[records.csv] explain=3 out=predictions.jsonl",
    ],
    "serve": [
        "guardtrain serve guard=outputs/guard                    # and open the address it tells",
        "guardtrain serve guard=org/name host=0.0.0.0 port=8080 max_batch=64 device=cuda",
        "curl -F image=@photo.jpg 'http://127.0.0.1:8000/v1/predict?point=strict'",
    ],
    "scenes": ["guardtrain scenes out=scenes pool=test n=200"],
}

# In this order; of a command with few settings all are told.
COMMON: dict[str, list[str]] = {
    "curve": [
        "grid.budgets", "grid.ratios", "grid.arms", "grid.controls", "grid.seeds", "loss.l2", "encoder.checkpoint",
        "plot.panels", "out", "data_dir",
    ],
    "train": [
        "mixture.budget", "mixture.ratio", "mixture.arm", "mixture.seed", "loss.l2", "optimizer.steps",
        "encoder.checkpoint", "guard", "out", "data_dir",
    ],
    "tune": [
        "space", "metric", "trials", "batch", "seeds", "jobs", "mixture.budget", "mixture.ratio", "out", "data_dir",
    ],
    "finetune": [
        "mixture.budget", "mixture.ratio", "mixture.seed", "lora.rank", "lora.lr", "lora.steps", "lora.batch_size",
        "lora.precision", "out", "data_dir",
    ],
    "embed": [
        "out", "encoder.checkpoint", "encoder.normalize", "encoder.device", "encoder.batch_size", "input", "storage",
        "workers", "on_error", "retry",
    ],
    "audit": [
        "max_images", "max_compared", "folds", "permutations", "duplicate_cosine", "attribute", "seed",
        "encoder.checkpoint", "out", "data_dir", "cache_dir",
    ],
    "attack": [
        "guards", "tests", "point", "attacks", "samples", "epsilon", "steps", "checkpoint", "device", "out",
    ],
    "serve": [
        "guard", "host", "port", "device", "checkpoint", "max_batch", "max_queue", "max_images", "frames", "page",
    ],
    "export": [
        "run", "out", "name", "licence", "points", "review.enabled", "whole", "neighbours", "pick.metric", "pick.best",
    ],
    "import-guard": [
        "kind", "file", "encoder.checkpoint", "out", "name", "onnx",
    ],
    "calibrate": [
        "guard", "data_sets", "out", "name", "points", "review.enabled", "training_images", "checkpoint", "device",
        "data_dir",
    ],
    "benchmark": [
        "guards", "data_sets", "compare_with", "categories", "points", "vlm.model", "vlm.base_url", "checkpoint", "out",
        "data_dir",
    ],
    "plot": [
        "results", "out", "all_runs", "plot.figures", "plot.panels", "plot.formats", "plot.width", "plot.title",
        "plot.tables", "plot.report",
    ],
}  # fmt: skip
