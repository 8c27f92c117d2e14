# python_package_folder(variable package folder): where the Python package
# `package` of the python3 on the path keeps `folder`, for use as a hint; empty
# if it is not installed.
function(python_package_folder variable package folder)
  set(found)
  find_program(LORICA_PYTHON python3)
  if(LORICA_PYTHON)
    execute_process(
      COMMAND ${LORICA_PYTHON} -c "import importlib.metadata as m
print(m.distribution('${package}').locate_file('${folder}'))"
      OUTPUT_VARIABLE found OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  endif()
  set(${variable} "${found}" PARENT_SCOPE)
endfunction()
