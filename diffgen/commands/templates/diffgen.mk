# The dataset of {name}, for your Makefile: include this file, and let what trains depend on the data.yaml below.
#
# diffgen is asked each time, as it knows which label or picture has changed: without a change it takes a second and leaves
# data.yaml as it is. With any exit code but 0 make stops before the training, and the images are kept: 3 is too few accepted
# images (`require` in the recipe); after 4 call make again.
{runs}/dataset/data.yaml: FORCE
	diffgen run {name_in_make}

train-{slug}: {runs}/dataset/data.yaml
	yolo train data=$< model=yolo26n.pt

.PHONY: FORCE train-{slug}
FORCE:
