"""What a package says of detections: how images are brought to the input's size, and how boxes come back."""

from pipeline.data.letterbox import PADDING

PREPROCESSING = {
    "resize": "letterbox",
    "padding": PADDING,
    "scale": "min(image_size[0] / image height, image_size[1] / image width)",
    "place": "top left",
}
"""What ``preprocessing.json`` says beside the keys of all tasks: an image keeps its shape, the rest is padding."""

USAGE = """\
ids = json.load(open("labels.json")).get("category_ids", range(len(labels)))  # Pascal VOC has names alone
names = ["num_detections", "detection_boxes", "detection_scores", "detection_classes"]
counts, boxes, scores, classes = session.run(names, {"image": pixels})
for i in range(int(counts[0, 0])):  # the surest first; what follows is padding
    box = (boxes[0, i] / scale).clip(0, 2 * original.size)  # x1, y1, x2, y2 in the pixels of the image itself
    print(labels[classes[0, i]], ids[classes[0, i]], scores[0, i], *box)"""

USAGE_WITHOUT_NMS = """\
ids = json.load(open("labels.json")).get("category_ids", range(len(labels)))  # Pascal VOC has names alone
boxes, scores = session.run(["boxes", "scores"], {"image": pixels})  # (1, places, 4), (1, places, classes)
boxes = (boxes[0] / scale).clip(0, 2 * original.size)  # x1, y1, x2, y2 in the pixels of the image itself
for i in (-scores[0].max(axis=1)).argsort()[:10]:  # a thing has many: drop what overlaps a surer one
    number = scores[0, i].argmax()
    print(labels[number], ids[number], scores[0, i, number], *boxes[i])"""
