# MINILLM_SANITIZE=address|undefined|address,undefined|thread, for every target.
if(MINILLM_SANITIZE)
  # Lines are all that a report needs: following variables through unrolled kernels doubles the time of compiling them.
  set(flags -fsanitize=${MINILLM_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all -g1)
  if(MINILLM_SANITIZE MATCHES "undefined")
    list(APPEND flags -fsanitize=float-cast-overflow)
  endif()
  # GCC's own manual: in code that a sanitizer instruments this warning is often wrong.
  list(APPEND flags $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
  add_compile_options(${flags})
  add_link_options(${flags})
endif()
if(MINILLM_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link)  # Coverage of the library too, which the fuzzer steers by.
endif()
