"""Configs of data sets inside of those that repeat, join or mix them."""


def innermost_options(options) -> list[dict]:
    """Lists the configs of the plain data sets in ``options``, in mmseg's order.

    Args:
        options: A data set's config, or a list of them, as ``data.train`` holds it.
    """
    if isinstance(options, (list, tuple)):
        return [inner for each in options for inner in innermost_options(each)]
    for key in ('dataset', 'datasets'):
        if key in options:
            return innermost_options(options[key])
    joined = {key: options[key] for key in ('img_dir', 'ann_dir', 'split')
              if isinstance(options.get(key), (list, tuple))}
    if not joined:
        return [options]
    return [{**options, **dict(zip(joined, values))} for values in zip(*joined.values())]
