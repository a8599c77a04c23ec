"""Records to append: effects, replacements of refused records, rejections of requests."""
