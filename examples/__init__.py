"""Programs that use the packages of this repository as a user would."""
