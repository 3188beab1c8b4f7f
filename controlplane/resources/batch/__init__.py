"""The kinds of `batch/v1`: Job and CronJob, their rules, and the text form of completion indexes."""
