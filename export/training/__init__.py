"""What every training shares, a distillation and a fine-tuning alike.

``data.py`` reads pictures and captions, ``classes.py`` their classes, ``augment.py`` makes views of them. ``recipe.py``
has the settings and what follows from them for a step, ``contrast.py`` CLIP's own loss, ``gradients.py`` gradients of a
whole batch's loss in parts and over processes, ``optimizer.py`` the AdamW, ``scores.py`` what a validation finds.
``state.py`` is what a killed training is resumed from. ``processes.py`` joins several processes, ``precision.py`` is
mixed precision. ``run_file.py`` has settings and result (``facts.py`` compares two), ``curves.py`` draws a training,
``events.py`` writes the same for TensorBoard, ``folder.py`` writes the model (with a ResNet ``openclip_folder.py``),
``bundle.py`` exports it.
"""
