"""The command har-shards; its subcommands lie in the modules beside."""

import click


@click.group()
def shards_main() -> None:
    """Build, describe, check and look at shard sets: videos decoded once into clips."""
