# make demo    install into .venv/, enlarge a bundled photograph, print a table
# make photographs   two dozen freely licensed ones into photographs/, for agents to learn from (Debian, Ubuntu)
# make test    the tests (those marked slow: .venv/bin/python -m pytest -m slow)
# make check   ruff and mypy, as CI runs them;  make format  fixes what ruff can
# make docs    build the manual into site/;  make docs-serve  shows it while you write
# make dist    build the source archive and the wheel into dist/, and check that a package index would take them
# make test-peers   the part of the tests that other libraries' checkers make up, over every registered environment
# make test-browser   the tests of the web page, in headless Chromium (Debian: apt-get install chromium chromium-driver)
# make test-ray   the tests of the Ray RLlib example, which needs an environment of its own, .venv-ray/
# make clean   remove .venv/ and everything built
# Another interpreter: make demo PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
RAY := .venv-ray
INSTALLED := $(VENV)/.installed

.PHONY: demo photographs test test-peers test-browser test-ray docs docs-serve dist check format clean

demo: $(INSTALLED)
	$(RUN) -m benchmarks demo

photographs: $(INSTALLED)
	$(RUN) -m benchmarks photographs

test: $(INSTALLED)
	$(RUN) -m pytest -n auto --dist loadfile

test-peers: $(INSTALLED)
	$(RUN) -m pytest tests/peers

test-browser: $(INSTALLED)
	$(RUN) -m pytest -m browser tests/web

test-ray: $(RAY)/.installed
	$(RUN) -m pytest -m ray tests/interop

docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --quiet

docs-serve: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs serve

dist: $(INSTALLED)
	rm -rf dist
	$(RUN) -m build --no-isolation
	$(RUN) -m twine check --strict dist/*

check: $(INSTALLED)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

format: $(INSTALLED)
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

clean:
	rm -rf $(VENV) $(RAY) build dist site *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis

# The last step: opencv-python's build needs libGL and other desktop libraries, which bare machines lack.
# The headless build, which pyiqa brings along, does not; they share the name cv2, and the last one installed owns it.
$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { echo 'SkipDiff needs Python 3.10 or newer; name one: make demo PYTHON=python3.12' >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo 'Python lacks its venv module; on Debian and Ubuntu: apt-get install python3-venv' >&2; exit 1; }
	@echo 'Installing into $(VENV)/: several minutes and about 7 GB the first time (torch with its CUDA libraries).'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install -c constraints.txt -e '.[agents,avif,bench,cache,diffusers,docs,export,heic,plans,render,torchrl,web,browser,dev]'
	$(RUN) -c 'import cv2' 2>/dev/null || $(RUN) -m pip install --force-reinstall --no-deps -c constraints.txt opencv-python-headless
	@touch $@

# RLlib pins another gymnasium. All else, torch above all, is that of .venv/, by a path file, so that this takes 300 MB.
$(RAY)/.installed: $(INSTALLED) agents/examples/ray-requirements.txt
	$(RUN) -m venv --clear $(RAY)
	$(RUN) -c 'import sysconfig as s; print("import site; site.addsitedir({!r})".format(s.get_path("purelib")))' > $(RAY)/libraries.pth
	mv $(RAY)/libraries.pth $(RAY)/lib/python3.*/site-packages/
	$(RAY)/bin/python -m pip install -r agents/examples/ray-requirements.txt
	@touch $@
