"""A run and everything it stores.

stages        the table of stages: all facts about each stage in one place
run           an open run, its frozen config and its stages
manifest      what a complete stage made, with hashes
storage       a local folder or an S3 bucket behind one interface; put-if-absent
lease         one job at a time per run
checkpoints   tensors in files, without pickle
shards        Parquet files with one row group per episode; datasets: those that a manifest names
status, cost  how far each stage is, and what it took
disk_space    how much a stage will write
"""
