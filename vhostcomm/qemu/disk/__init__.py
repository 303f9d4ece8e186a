"""A guest's disks: the format of an image, and how the guest reads its partition table.

`layouts` is the table of known partition layouts, `image` determines an image's format, `inspection` compares an image
with the layouts, `creation` makes a new system disk, and `tools` runs sfdisk and qemu-img.
"""
