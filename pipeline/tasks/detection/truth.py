"""What is right about images with objects, as it is stored beside their pixels."""

import numpy as np

from pipeline.core.arrays import Truth
from pipeline.data.letterbox import letterbox_scale
from pipeline.data.objects import Objects


def encode_objects(objects: Objects, image_size: tuple[int, int]) -> Truth:
    """Return the M objects on N images that are letterboxed to ``image_size`` (H, W).

    ``boxes`` float32 (M, 4): x1 y1 x2 y2 in pixels of the letterboxed image; ``classes`` int64 (M,); ``offsets`` int64
    (N + 1,): those of image i are the rows from offsets[i] to offsets[i + 1]; ``ignored`` bool (M,); ``areas`` float32
    (M,) and ``sizes`` int64 (N, 2), height and width, in pixels of the images as they are; ``scales`` float64 (N,):
    pixels of the letterboxed image for each of those.
    """
    scales = np.array([letterbox_scale((height, width), image_size) for height, width in objects.sizes.tolist()])
    boxes = (objects.boxes * scales[objects.images, None]).astype(np.float32)
    boxes = np.minimum(boxes, np.array(image_size[::-1] * 2, dtype=np.float32))  # a rounding may reach over the edge
    is_flat = boxes[:, :2] >= boxes[:, 2:]  # a box may be thinner than the steps of float32
    boxes[:, :2] = np.where(is_flat, np.nextafter(boxes[:, 2:], np.float32(-1)), boxes[:, :2])
    return {
        "boxes": boxes,
        "classes": objects.categories,
        "offsets": objects.offsets,
        "ignored": objects.ignored,
        "areas": objects.areas.astype(np.float32),
        "sizes": objects.sizes,
        "scales": scales.astype(np.float64).reshape(-1),
    }
