"""Self-supervised pretraining on the train subset: `har-pretrain`.

The loop is that of `har.training.loop`; here are what it learns (`contrast`), what shows whether it
learns (`quality`) and its settings (`config`). Exports nothing: `--help` must not load torch.
"""
