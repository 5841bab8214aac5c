# ONNX Runtime: its C header, and its library in ONNXRUNTIME_ROOT, in the system, or in a Python wheel.
#
#   ONNXRUNTIME_INCLUDE_DIR   where onnxruntime_c_api.h lies; the wheel has none (`make bindings-dependencies`)
#   ONNXRUNTIME_LIBRARY       the library; any that is as new as src/session.cpp says serves an older header
#   ONNXRUNTIME_PYTHON        a Python interpreter, whose onnxruntime or onnxruntime-gpu is used where the system has none
#
# Defines OnnxRuntime::OnnxRuntime, and ONNXRUNTIME_LINK where the library has no name that a loader finds: it is then a
# link to it in the build folder.

find_path(ONNXRUNTIME_INCLUDE_DIR onnxruntime_c_api.h
  HINTS ${ONNXRUNTIME_ROOT} PATH_SUFFIXES include include/onnxruntime include/onnxruntime/core/session onnxruntime)
find_library(ONNXRUNTIME_LIBRARY onnxruntime HINTS ${ONNXRUNTIME_ROOT} PATH_SUFFIXES lib lib64)
if(NOT ONNXRUNTIME_LIBRARY AND ONNXRUNTIME_PYTHON)
  execute_process(
    COMMAND ${ONNXRUNTIME_PYTHON} -c
      "import importlib.util as u, pathlib as p; print(p.Path(u.find_spec('onnxruntime').origin).parent / 'capi')"
    OUTPUT_VARIABLE wheel OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  file(GLOB in_wheel ${wheel}/libonnxruntime.so.*)
  if(in_wheel)
    list(GET in_wheel 0 first)
    set(ONNXRUNTIME_LIBRARY ${first} CACHE FILEPATH "ONNX Runtime's library" FORCE)
  endif()
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(OnnxRuntime
  REQUIRED_VARS ONNXRUNTIME_LIBRARY ONNXRUNTIME_INCLUDE_DIR
  REASON_FAILURE_MESSAGE "`make bindings-dependencies` fetches the headers, see bindings/c/README.md for the library")

if(OnnxRuntime_FOUND AND NOT TARGET OnnxRuntime::OnnxRuntime)
  set(location ${ONNXRUNTIME_LIBRARY})
  get_filename_component(folder ${ONNXRUNTIME_LIBRARY} DIRECTORY)
  if(NOT EXISTS ${folder}/libonnxruntime.so.1)
    set(ONNXRUNTIME_LINK ${CMAKE_BINARY_DIR}/libonnxruntime.so.1)
    file(CREATE_LINK ${ONNXRUNTIME_LIBRARY} ${ONNXRUNTIME_LINK} SYMBOLIC)
    set(location ${ONNXRUNTIME_LINK})
  endif()
  add_library(OnnxRuntime::OnnxRuntime SHARED IMPORTED)
  set_target_properties(OnnxRuntime::OnnxRuntime PROPERTIES
    IMPORTED_LOCATION ${location} INTERFACE_INCLUDE_DIRECTORIES ${ONNXRUNTIME_INCLUDE_DIR})
endif()
