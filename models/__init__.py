"""Networks and tensor mathematics; imports PyTorch and torchvision only.

``core`` (tables, typed calls), ``layers``, ``backbones``, ``encoder_bodies`` and ``flow_paths`` hold the parts. Built
from them: ``integrate`` (Euler steps), ``schedules`` and ``meta_encoders`` (the tables), ``flow``, ``classifier``,
``students``, ``losses``; ``detections`` says what is reported of boxes, without PyTorch; ``factory`` builds by name, ``meta_encoder`` is what all encoders have in
common, ``global_batch_norm`` serves training in several processes; ``folding`` and ``deploy`` give the forms in which a
student ships.
"""
