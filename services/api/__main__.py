"""`python -m ragcore_api`: the HTTP service with the settings of the environment."""

from ragcore_api.main import main

if __name__ == "__main__":
    main()
