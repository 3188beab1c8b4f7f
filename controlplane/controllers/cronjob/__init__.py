"""The CronJob controller: `schedule` says which time is due (pure), `controller` makes the Jobs."""
