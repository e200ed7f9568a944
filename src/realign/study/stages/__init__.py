"""The stages of a study, one file each (a run's log beside the run): see :class:`realign.study.stage.Stage`."""
