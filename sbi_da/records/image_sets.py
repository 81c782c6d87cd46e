"""Image sets in: stacks, Galaxy Zoo tables with pictures, the sets of galaxy-da, FITS cut-outs.

Every reader gives records of one image survey. Labels of real objects are sealed: only an evaluation opens them. An
image that cannot be read is a row without images and a reason in the root column ``image_flag``.
"""

from sbi_da.records.galaxy_zoo import read_galaxy_zoo
from sbi_da.records.image_layouts.cutouts import read_cutouts
from sbi_da.records.image_layouts.galaxy_da import read_galaxy_da
from sbi_da.records.image_layouts.pictures import read_table_with_images
from sbi_da.records.image_layouts.stacks import read_stack

__all__ = ["read_cutouts", "read_galaxy_da", "read_galaxy_zoo", "read_stack", "read_table_with_images"]
