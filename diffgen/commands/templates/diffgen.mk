# The dataset of {name}, for your Makefile: include this file, and make your training target depend on the data.yaml below.
#
# diffgen runs each time, because only it knows which labels or pictures changed. Without a change it takes a second and leaves
# data.yaml as it is. On any exit code except 0, make stops before the training, and the images are kept. 3 means too few
# accepted images (`require` in the recipe); after 4, run make again. For labels that are no boxes, diffgen prints the command
# to train with, such as `yolo segment train`.
{runs}/dataset/data.yaml: FORCE
	diffgen run {name_in_make}

train-{slug}: {runs}/dataset/data.yaml
	yolo train data=$< model=yolo26n.pt

.PHONY: FORCE train-{slug}
FORCE:
