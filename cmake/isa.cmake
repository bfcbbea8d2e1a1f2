# minillm_isa_variants(LAYER FOLDER): compiles every src/FOLDER/*.cpp once per instruction set into minillm_LAYER, with
# MINILLM_ISA naming the namespace. Such files hold no inline function or container of the standard library that another
# file might share: the linker keeps one copy of those, perhaps the AVX-512 one, for every CPU.
# -O2 and no inter-procedural cloning: GCC 12 at -O3 spills the accumulators of the register tiles (docs/SPEED.md).
# The quantised products fill the 16 registers of AVX2, and their code's order must stay as written: GCC otherwise turns chains of sums
# into trees (reassoc) and moves loads and products far ahead of where they are used (ter), and spills 14 to 46 registers a unit.
# No contraction: a product and a sum become one instruction only where the code says so, so that two kernels that write the
# same operations give the same bits. GCC 12 wrongly reports the AVX-512 intrinsics' own placeholders as uninitialised (PR 105593).
set(minillm_isa_flags_scalar "")
set(minillm_isa_flags_avx2 -mavx2 -mfma -mf16c)
set(minillm_isa_flags_avx_vnni ${minillm_isa_flags_avx2} -mavxvnni)
set(minillm_isa_flags_avx512_vnni ${minillm_isa_flags_avx2} -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mprefer-vector-width=512)
set(minillm_isa_flags_avx512_bf16 ${minillm_isa_flags_avx512_vnni} -mavx512bf16)
set(minillm_isa_flags_amx ${minillm_isa_flags_avx512_bf16} -mavx512vbmi -mamx-tile -mamx-bf16)

function(minillm_isa_variants layer folder)
  file(GLOB all_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/${folder}/*.cpp)
  if(NOT all_sources)
    return()
  endif()
  set(target_name $<TARGET_PROPERTY:NAME>)
  set(is_tight $<AND:$<CXX_COMPILER_ID:GNU>,$<IN_LIST:${target_name},minillm_${layer}_avx2;minillm_${layer}_avx_vnni>>)
  set_source_files_properties(${CMAKE_SOURCE_DIR}/src/${folder}/gemm.cpp ${CMAKE_SOURCE_DIR}/src/${folder}/gemv.cpp
    PROPERTIES COMPILE_OPTIONS "$<${is_tight}:-fno-tree-reassoc;-fno-tree-ter>")
  foreach(isa IN ITEMS scalar avx2 avx_vnni avx512_vnni avx512_bf16 amx)
    set(sources ${all_sources})
    if(isa STREQUAL avx_vnni)  # Attention, all in floats, is that of avx2.
      list(FILTER sources EXCLUDE REGEX "/attention[^/]*$")
    elseif(isa STREQUAL avx512_bf16)  # Adds nothing to the other kernels, which are those of avx512_vnni.
      list(FILTER sources INCLUDE REGEX "/attention[^/]*$")
    elseif(isa STREQUAL amx)  # Adds files of its own.
      list(FILTER sources INCLUDE REGEX "/(attention|amx)[^/]*$")
    endif()
    if(NOT isa STREQUAL amx)
      list(FILTER sources EXCLUDE REGEX "/amx[^/]*$")
    endif()
    add_library(minillm_${layer}_${isa} OBJECT ${sources})
    target_include_directories(minillm_${layer}_${isa} PRIVATE ${CMAKE_SOURCE_DIR}/include ${CMAKE_SOURCE_DIR}/src)
    target_compile_definitions(minillm_${layer}_${isa} PRIVATE MINILLM_ISA=${isa} MINILLM_ISA_${isa}=1)
    target_compile_options(minillm_${layer}_${isa} PRIVATE ${minillm_isa_flags_${isa}} -O2 -ffp-contract=off
      $<$<CXX_COMPILER_ID:GNU>:-fno-ipa-cp -Wno-uninitialized -Wno-maybe-uninitialized>)
    if(MINILLM_FUZZ)  # Nothing that is fuzzed calls a kernel.
      target_compile_options(minillm_${layer}_${isa} PRIVATE -fno-sanitize=all)
    elseif(MINILLM_SANITIZE)  # Unrolled loops are hundreds of scopes: to follow when each ends takes minutes of compiling a file.
      target_compile_options(minillm_${layer}_${isa} PRIVATE -fno-sanitize-address-use-after-scope)
    endif()
    target_link_libraries(minillm_${layer}_${isa} PRIVATE minillm_warnings)
    target_sources(minillm_${layer} PRIVATE $<TARGET_OBJECTS:minillm_${layer}_${isa}>)
  endforeach()
endfunction()
