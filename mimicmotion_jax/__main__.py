"""`python -m mimicmotion_jax`: the same as the command `mimicmotion`."""

from mimicmotion_jax.cli.main import main

if __name__ == "__main__":
    main()
