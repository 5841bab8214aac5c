"""What every training shares, a distillation and a fine-tuning alike.

``data.py`` reads pictures, captions and classes, ``augment.py`` makes views of them. ``loop.py`` is the training,
``learner.py`` what changes in it, ``recipe.py`` its settings, ``contrast.py`` CLIP's own loss, ``gradients.py`` a whole
batch's gradients in parts and over processes, ``batch_norms.py`` what is learned without any, ``determinism.py`` sums
in one order, ``optimizer.py`` the AdamW, ``scores.py`` what a validation finds, ``state.py`` what a killed training is
resumed from. ``processes.py`` joins several processes, ``precision.py`` is mixed precision. ``run_file.py`` has
settings and result (``facts.py`` compares two), ``curves.py`` draws a training, ``events.py`` writes the same for
TensorBoard, ``folder.py`` writes the model (``openclip_folder.py`` with a ResNet or a tower of timm), ``bundle.py``
exports it.
"""
