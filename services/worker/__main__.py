"""`python -m ragcore_worker`: one worker process with the settings of the environment."""

from ragcore_worker.main import main

if __name__ == "__main__":
    main()
