# What people type. Each target makes the virtual environment that it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/pip install --quiet --constraint constraints.txt
PEERS ?= .venv-peers
ORIGIN ?= .venv-origin

.PHONY: demo tour test test-quick lint retrain accuracy bench bench-images bench-accuracy bench-families bench-export bench-large bench-families-speed bench-few-shot bench-prompts bench-retrieval bench-haswell clean bench-heatmaps bench-decisions bench-robustness bench-stream bench-c-images bench-half bench-tensorrt bench-agreement bindings bindings-dependencies bindings-fuzz bench-bindings bench-distillation bench-text-students bench-finetune bench-fp8 gstreamer gstreamer-dependencies gstreamer-leaks bench-gstreamer bench-quantization-aware bench-timm

demo: $(VENV)/.export  ## export the demonstration model to INT8, prove it, classify pictures
	$(BIN)/clipedge export --precision int8 --output demo-output/bundle
	$(BIN)/python -m clipedge.calibration.scenes demo-output/pictures --split test --count 6
	$(BIN)/clipedge classify demo-output/bundle demo-output/pictures/*.png --sheet demo-output/answers.png
	@echo
	@echo "The bundle is in demo-output/bundle; demo-output/answers.png shows the pictures with their answers."

tour: $(VENV)/.export  ## run docs/tour.md from top to bottom, and draw its pictures again
	rm -rf demo-output/tour
	$(BIN)/python docs/run_tour.py demo-output/tour --pictures

# Two processes: most tests keep one core busy. A file's tests share what its fixtures made.
test: $(VENV)/.test $(ORIGIN)/.installed bindings-dependencies gstreamer-dependencies  ## all tests
	$(BIN)/pytest --numprocesses 2 --dist loadfile

test-quick: $(VENV)/.test $(ORIGIN)/.installed bindings-dependencies gstreamer-dependencies  ## without the slow ones
	$(BIN)/pytest -m "not slow"

# mypy looks at an installed copy from another folder: in the repository it would skip export/ and calibration/.
lint: $(VENV)/.test  ## style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	rm -rf build/lint && $(BIN)/pip install --quiet --no-deps --target build/lint .
	cd build/lint && $(abspath $(BIN))/mypy --config-file ../../pyproject.toml -p clipedge

accuracy: $(VENV)/.test  ## measure the demonstration checkpoint with transformers
	$(BIN)/python benchmarks/demo_accuracy.py

bench: $(VENV)/.test $(PEERS)/.installed  ## ClipEdge beside its peers: benchmarks/results/cpu.md, cpu.json, cpu.png
	$(BIN)/python benchmarks/run.py --peers $(PEERS)/bin/python

bench-images: $(VENV)/.export  ## what the preprocessing modes cost, and what the fast one does to an embedding
	$(BIN)/python benchmarks/preprocessing.py

bench-c-images: $(VENV)/.export  ## preprocessing in libclipedge beside Pillow: benchmarks/results/c_preprocessing.md, .json
	$(BIN)/python benchmarks/c_preprocessing.py

bench-accuracy: $(VENV)/.export  ## what INT8 costs in accuracy: benchmarks/results/int8_accuracy.md, .json
	$(BIN)/python benchmarks/int8_accuracy.py

bench-half: $(VENV)/.export  ## half precision computed as such: benchmarks/results/half_precision.md, .json
	$(BIN)/python benchmarks/half_precision.py

bench-families: $(VENV)/.test  ## the same for a small ResNet and SigLIP, trained here: results/families_accuracy.md, .json
	$(BIN)/python benchmarks/families_accuracy.py

bench-tensorrt: $(VENV)/.test $(ORIGIN)/.installed  ## INT8 for TensorRT, ours and modelopt's: results/tensorrt_int8.md, .json
	$(BIN)/python benchmarks/tensorrt_int8.py --modelopt $(ORIGIN)/bin/python

bench-fp8: $(VENV)/.test $(ORIGIN)/.installed  ## FP8 for TensorRT beside fp16 and INT8: results/tensorrt_fp8.md, .json
	$(BIN)/python benchmarks/tensorrt_fp8.py --modelopt $(ORIGIN)/bin/python

bench-export: $(VENV)/.test  ## time and memory of an INT8 export: benchmarks/results/export_cost.md, .json
	$(BIN)/python benchmarks/export_cost.py

bench-large: $(VENV)/.test  ## large models: ViT-L/14 in memory bounds, ViT-H/14 beyond 2 GiB: results/export_large.md, .json
	$(BIN)/python benchmarks/export_large.py

bench-families-speed: $(VENV)/.test $(ORIGIN)/.installed  ## image towers of several families: results/families_speed.md, .json
	$(BIN)/python benchmarks/families_speed.py --origin $(ORIGIN)/bin/python

bench-few-shot: $(VENV)/.export  ## classes taught by a few pictures: benchmarks/results/few_shot.md, .json
	$(BIN)/python benchmarks/few_shot.py

bench-prompts: $(VENV)/.export  ## badly worded labels, tuned on a few pictures: benchmarks/results/prompt_tuning.md, .json
	$(BIN)/python benchmarks/prompt_tuning.py

bench-heatmaps: $(VENV)/.export  ## where in the picture a label is: benchmarks/results/pointing_game.md, dense_forms.md, .json
	$(BIN)/python benchmarks/dense_forms.py
	$(BIN)/python benchmarks/pointing_game.py

bench-decisions: $(VENV)/.export  ## "none of these" for unknown shapes, calibration: benchmarks/results/decisions.md, .json
	$(BIN)/python benchmarks/decisions.py

bench-robustness: $(VENV)/.export  ## INT8 beside float32 on worse pictures, and groups: results/robustness.md, .json, .html
	$(BIN)/python benchmarks/robustness.py

bench-stream: $(VENV)/.export  ## what counts as a changed frame, and what that spares: results/stream_changes.md, .json
	$(BIN)/python benchmarks/stream_changes.py

bench-retrieval: $(VENV)/.test $(PEERS)/.installed  ## indexes of up to a million vectors beside faiss: results/retrieval.md, .json
	$(BIN)/python benchmarks/retrieval.py --peers $(PEERS)/bin/python

bench-agreement: $(VENV)/.test  ## `clipedge bench` beside an independent timing loop: results/bench_agreement.md, .json
	$(BIN)/python benchmarks/bench_agreement.py

bench-haswell: $(VENV)/.test  ## INT8 on emulated processors without VNNI: benchmarks/results/haswell.md, .json
	$(BIN)/python benchmarks/haswell.py

# A compiler, CMake and ONNX Runtime's C headers, on a fresh Debian or Ubuntu (a Jetson, too). Needs root for apt-get.
bindings-dependencies: build/onnxruntime-headers/onnxruntime_c_api.h  ## what building libclipedge needs

build/onnxruntime-headers/onnxruntime_c_api.h: bindings/c/fetch_headers.sh
	command -v g++ cmake pkg-config >/dev/null || (apt-get update && apt-get install -y --no-install-recommends g++ make cmake pkg-config)
	bindings/c/fetch_headers.sh build/onnxruntime-headers
	touch $@

bindings: $(VENV)/.export bindings-dependencies  ## libclipedge and its examples, with the ONNX Runtime of $(VENV): build/bindings
	cmake -S bindings/c -B build/bindings -DCLIPEDGE_EXAMPLES=ON \
		-DONNXRUNTIME_PYTHON=$(abspath $(BIN))/python -DONNXRUNTIME_INCLUDE_DIR=$(abspath build/onnxruntime-headers)
	cmake --build build/bindings --parallel 2

FUZZ_SECONDS ?= 600
bindings-fuzz: $(VENV)/.test bindings-dependencies  ## attack libclipedge's parsers, each for FUZZ_SECONDS
	CLIPEDGE_FUZZ_SECONDS=$(FUZZ_SECONDS) $(BIN)/pytest tests/bindings/test_builds.py -k attack -rP

# GStreamer with its headers, tools and the plugins of the examples, on the same machines. Needs root for apt-get.
GSTREAMER_PACKAGES := libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev gstreamer1.0-tools \
	gstreamer1.0-plugins-base gstreamer1.0-plugins-good valgrind

gstreamer-dependencies: build/.gstreamer  ## what building and testing the GStreamer element needs

build/.gstreamer:
	(pkg-config --exists gstreamer-video-1.0 && command -v valgrind && gst-inspect-1.0 --exists rawvideoparse && \
		gst-inspect-1.0 --exists capssetter) >/dev/null || \
		(apt-get update && apt-get install -y --no-install-recommends $(GSTREAMER_PACKAGES))
	mkdir -p build && touch $@

gstreamer: bindings gstreamer-dependencies  ## the GStreamer plugin: build/gstreamer/libgstclipedge.so
	cmake --install build/bindings --prefix build/gstreamer-prefix
	cmake -S bindings/gstreamer -B build/gstreamer -DCMAKE_PREFIX_PATH=$(abspath build/gstreamer-prefix)
	cmake --build build/gstreamer --parallel 2

GSTREAMER_FRAMES ?= 10000
gstreamer-leaks: $(VENV)/.test bindings-dependencies gstreamer-dependencies  ## GSTREAMER_FRAMES frames under valgrind
	CLIPEDGE_GSTREAMER_FRAMES=$(GSTREAMER_FRAMES) $(BIN)/pytest tests/bindings/gstreamer/test_leaks.py

bench-gstreamer: $(VENV)/.export gstreamer  ## a live pipeline with and without the element: results/gstreamer.md, .json
	$(BIN)/python benchmarks/gstreamer_element.py

bench-bindings: $(VENV)/.export bindings  ## libclipedge beside ONNX Runtime's own session: results/bindings_overhead.md, .json
	$(BIN)/python benchmarks/bindings_overhead.py

bench-distillation: $(VENV)/.export  ## a small student from scratch, distilled, inherited: results/distillation.md, .json, .svg
	$(BIN)/python benchmarks/distillation.py

bench-text-students: $(VENV)/.export  ## text towers kept, cut down and new: benchmarks/results/text_students.md, .json
	$(BIN)/python benchmarks/text_students.py

bench-finetune: $(VENV)/.export  ## textured scenes learned, plain ones kept: benchmarks/results/finetune.md, .json, .svg
	$(BIN)/python benchmarks/finetune.py

bench-quantization-aware: $(VENV)/.export  ## what finishing brings back of what INT8 loses: results/quantization_aware.md, .json
	$(BIN)/python benchmarks/quantization_aware.py

bench-timm: $(VENV)/.test $(ORIGIN)/.installed  ## which of timm's networks can be students: results/timm_towers.md, .json
	PYTHONPATH=tests/origin/site $(ORIGIN)/bin/python benchmarks/timm_towers.py

retrain: $(VENV)/.test  ## train the demonstration checkpoint again
	$(BIN)/python -m clipedge.export.demo.train --output demo-output/checkpoint

$(VENV)/.export: pyproject.toml constraints.txt
	@echo "Installing into $(VENV) (torch takes a minute or two) ..."
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable '.[export]'
	touch $@

$(VENV)/.test: pyproject.toml constraints.txt
	@echo "Installing into $(VENV) (torch takes a minute or two) ..."
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable '.[test]'
	touch $@

# The libraries that models come from, as references for the tests, over the packages of $(VENV). They need torchvision,
# which breaks transformers there, and are installed without dependencies, so that nothing of $(VENV) is there twice.
$(ORIGIN)/.installed: $(VENV)/.test tests/origin/libraries.txt
	test -x $(ORIGIN)/bin/python || $(PYTHON) -m venv $(ORIGIN)
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" > \
		$$($(ORIGIN)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/base.pth
	$(ORIGIN)/bin/pip install --quiet --no-deps --requirement tests/origin/libraries.txt
	touch $@

# optimum-onnx needs an older transformers than the tests do.
$(PEERS)/.installed: benchmarks/peers.txt constraints.txt
	@echo "Installing ClipEdge's peers into $(PEERS) (torch takes a minute or two) ..."
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/pip install --quiet --constraint constraints.txt --requirement benchmarks/peers.txt
	touch $@

clean:
	rm -rf $(VENV) $(PEERS) $(ORIGIN) build demo-output
