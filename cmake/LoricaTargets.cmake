# lorica_options: what every target of the project is compiled with.
# lorica_warnings: the same without the sanitizers, for what may not have them.
# lorica_floor(name [DEPENDS floors...]): one static library per floor.
include(GoogleTest OPTIONAL)

set(host $<NOT:$<COMPILE_LANGUAGE:CUDA>>)
set(warnings
  $<${host}:-Wall;-Wextra;-Wconversion;-Wno-sign-conversion;-Wshadow;-Wnon-virtual-dtor;-Wno-missing-field-initializers;-fno-math-errno>
  $<$<AND:${host},$<BOOL:${LORICA_WERROR}>>:-Werror>
  # GCC 12 sees overlaps in "x" + std::string where it optimizes (its bug 105651).
  $<$<AND:${host},$<CONFIG:Release>,$<CXX_COMPILER_ID:GNU>,$<VERSION_LESS:$<CXX_COMPILER_VERSION>,13>>:-Wno-restrict>
  # Registers that spill to memory are a warning too.
  $<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr;--Werror=all-warnings;-Xcompiler=-Wall;-Xptxas=-warn-spills>)
foreach(options lorica_options lorica_warnings)
  add_library(${options} INTERFACE)
  target_include_directories(${options} INTERFACE ${PROJECT_SOURCE_DIR})
  target_compile_options(${options} INTERFACE ${warnings})
endforeach()
if(LORICA_SANITIZE)
  target_compile_options(lorica_options INTERFACE
    -fsanitize=${LORICA_SANITIZE} -fno-omit-frame-pointer -O1)
  if(LORICA_SANITIZE MATCHES undefined)
    target_compile_options(lorica_options INTERFACE
      -fno-sanitize-recover=undefined)
  endif()
  target_link_options(lorica_options INTERFACE -fsanitize=${LORICA_SANITIZE})
endif()

function(lorica_floor name)
  cmake_parse_arguments(ARG "" "" "DEPENDS" ${ARGN})
  add_library(lorica_${name} STATIC)
  add_library(lorica::${name} ALIAS lorica_${name})
  target_link_libraries(lorica_${name} PUBLIC lorica_options ${ARG_DEPENDS})
endfunction()

# What the thread sanitizer needs built: the tests labelled `threads`.
add_custom_target(thread_tests)
# What the preset cuda-sim builds: the tests labelled `cuda`.
add_custom_target(cuda_tests)
# What the preset cuda builds beside lorica: the tests labelled `gpu`, step_bench.
add_custom_target(gpu_tests)

# lorica_test(path/name_test.cc [LABELS ...] [LIBS ...]): one binary per test
# file, named after its path, so that a crash names the file.
function(lorica_test source)
  cmake_parse_arguments(ARG "" "TIMEOUT" "LABELS;LIBS" ${ARGN})
  string(REGEX REPLACE "\\.cc$" "" target ${source})
  file(RELATIVE_PATH folder ${PROJECT_SOURCE_DIR}/tests
       ${CMAKE_CURRENT_SOURCE_DIR})
  string(REPLACE "/" "_" target "${folder}_${target}")
  add_executable(${target} ${source})
  # A test of a floor builds that floor and those below it.
  string(REGEX REPLACE "/.*" "" floor ${folder})
  if(NOT TARGET lorica::${floor})
    set(floor runtime)
  endif()
  target_link_libraries(${target} PRIVATE lorica::${floor} lorica::testing
                        GTest::gtest_main GTest::gmock ${ARG_LIBS})
  if(NOT ARG_LABELS)
    set(ARG_LABELS unit)
  endif()
  if("threads" IN_LIST ARG_LABELS)
    add_dependencies(thread_tests ${target})
  endif()
  if("cuda" IN_LIST ARG_LABELS)
    add_dependencies(cuda_tests ${target})
  endif()
  if("gpu" IN_LIST ARG_LABELS)
    add_dependencies(gpu_tests ${target})
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  gtest_discover_tests(${target} DISCOVERY_TIMEOUT 60
    WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
    PROPERTIES TIMEOUT ${ARG_TIMEOUT} ENVIRONMENT "OMP_WAIT_POLICY=passive")
  # gtest_discover_tests flattens lists among its properties and keeps the first
  # label alone, so the labels are set by a file that ctest reads after its own.
  set(labels_file ${CMAKE_CURRENT_BINARY_DIR}/${target}_labels.cmake)
  file(CONFIGURE OUTPUT ${labels_file} @ONLY CONTENT
    "set_tests_properties(\${@target@_TESTS} PROPERTIES LABELS \"@ARG_LABELS@\")\n")
  set_property(DIRECTORY APPEND PROPERTY TEST_INCLUDE_FILES ${labels_file})
endfunction()

# lorica_mpi_test(path/name_test.cc RANKS 1 2 4): a program that has a main of
# its own, run as so many ranks of this machine; one rank without mpirun. Open
# MPI keeps memory to its end, which the leak checker would report.
function(lorica_mpi_test source)
  cmake_parse_arguments(ARG "" "TIMEOUT" "RANKS" ${ARGN})
  string(REGEX REPLACE "\\.cc$" "" target ${source})
  file(RELATIVE_PATH folder ${PROJECT_SOURCE_DIR}/tests
       ${CMAKE_CURRENT_SOURCE_DIR})
  string(REPLACE "/" "_" target "${folder}_${target}")
  add_executable(${target} ${source})
  target_link_libraries(${target} PRIVATE lorica::testing GTest::gtest)
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  foreach(ranks ${ARG_RANKS})
    set(launch ${MPIEXEC_EXECUTABLE} -n ${ranks} --oversubscribe --bind-to none)
    if(ranks EQUAL 1)
      set(launch)
    endif()
    add_test(NAME ${target}.On${ranks} COMMAND ${launch} $<TARGET_FILE:${target}>
             WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
    set_tests_properties(${target}.On${ranks} PROPERTIES LABELS mpi
      TIMEOUT ${ARG_TIMEOUT} PROCESSORS ${ranks} ENVIRONMENT
      "OMPI_ALLOW_RUN_AS_ROOT=1;OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1;ASAN_OPTIONS=detect_leaks=0;OMP_NUM_THREADS=1")
  endforeach()
endfunction()
