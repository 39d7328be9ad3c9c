# make demo    a fresh machine generates its first clip        make test    a fresh machine runs the tests
# make check   ruff and pyright                                make clean   removes what these made
#
# PYTHON=python3.12  another interpreter (3.11 or newer)       VENV=.venv   where everything is installed
# WHEEL=dist/x.whl   install this wheel instead of the tree    ARGS="-k x"  passed on to pytest

PYTHON ?= python3
VENV ?= .venv
WHEEL ?=
OUT ?= out
JOBS ?= 2
ARGS ?=
BIN = $(VENV)/bin
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check
# where pyright finds an editable installation, whose folders lie elsewhere than their names say
LINK = $(if $(WHEEL),,mkdir -p .typing && ln -sfn .. .typing/counterpoint)

.PHONY: demo test check clean

demo: $(VENV)/.installed
	@$(BIN)/counterpoint generate "a small glass ball drops on a wooden floor and bounces" \
		-o $(OUT)/drop.mp4 --seed 8 --best-of 4 --overwrite
	@echo "drop.mp4: video with its sound.  drop.csv: the sensors.  drop.png: the clip on one time axis."

test: $(VENV)/.installed-test
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/pytest -n $(JOBS) --dist loadfile $(ARGS)

check: $(VENV)/.installed-test
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright --pythonpath $(BIN)/python

clean:
	rm -rf $(VENV) $(OUT) .typing build *.egg-info

# The stamps are younger than pyproject.toml (or the wheel) while the installation is up to date.
$(VENV)/.installed: pyproject.toml $(WHEEL) | $(BIN)/pip
	@echo "installing Counterpoint into $(VENV): about two minutes, 6 GB with PyTorch"
	@$(INSTALL) $(if $(WHEEL),$(WHEEL),--editable .)
	@$(LINK)
	@touch $@

$(VENV)/.installed-test: pyproject.toml $(WHEEL) | $(BIN)/pip
	@echo "installing Counterpoint and its tests into $(VENV): about two minutes, 6 GB with PyTorch"
	@$(INSTALL) $(if $(WHEEL),"$(WHEEL)[test]",--editable ".[test]")
	@$(INSTALL) --no-deps "tinysoundfont>=0.3.6"  # without pyaudio, which it needs for live playing alone
	@$(LINK)
	@touch $@ $(VENV)/.installed

# Debian and Ubuntu keep ensurepip in a package of its own; where it is missing, the system's pip serves.
$(BIN)/pip:
	@command -v $(PYTHON) >/dev/null || { echo "there is no $(PYTHON): install Python 3.11 or newer"; exit 1; }
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null || { \
		echo "Counterpoint needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>&1 | head -1);" \
			"name another one: make PYTHON=python3.12"; exit 1; }
	@if $(PYTHON) -c "import ensurepip, venv" 2>/dev/null; then $(PYTHON) -m venv $(VENV); \
	elif $(PYTHON) -c "import pip, venv" 2>/dev/null; then \
		$(PYTHON) -m venv --without-pip $(VENV) && \
		$(PYTHON) -m pip --python $(BIN)/python install --quiet --disable-pip-version-check pip; \
	else echo "$(PYTHON) can't make virtual environments; on Debian or Ubuntu: sudo apt install python3-venv"; exit 1; fi
