"""How an image becomes a network's input, as the Python lines of a model card."""

FITTINGS = {
    "central_square": """\
scale = max(width / image.width, height / image.height)  # cover the input, then cut out the centre
covering = max(width, round(image.width * scale)), max(height, round(image.height * scale))
image = image.resize(covering, Image.Resampling.BICUBIC)
left, top = (image.width - width) // 2, (image.height - height) // 2
image = image.crop((left, top, left + width, top + height))""",
    "letterbox": """\
scale = min(width / image.width, height / image.height)  # all of it fits the input, at its top left
fitting = max(1, round(image.width * scale)), max(1, round(image.height * scale))
original, image = image, Image.new("RGB", (width, height), 3 * (preprocessing["padding"],))
image.paste(original.resize(fitting, Image.Resampling.BICUBIC))""",
}
"""From the whole ``image`` to one of the input's size, by the ways of ``pipeline.tasks.base.Task.resize``."""

PIXELS = {
    "float32": "pixels = np.asarray(image, dtype=np.float32).transpose(2, 0, 1)[None] / 255  # (1, 3, H, W), RGB",
    "uint8": "pixels = np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1)[None])  # (1, 3, H, W), RGB, uint8",
}
