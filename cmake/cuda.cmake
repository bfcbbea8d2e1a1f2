# The CUDA backend. Generic kernels for sm_80 and, as PTX, everything newer; files under sm90/ for Hopper alone.
# libcudart is linked statically and the driver's entry points are found at run time: the binary starts without a GPU.
enable_language(CUDA)
find_package(CUDAToolkit 12.4 REQUIRED)
if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 does not know that nvcc 12 and newer has it.
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
endif()

set(MINILLM_CUDA_ARCHITECTURES "80;90" CACHE STRING "GPU generations to compile for; one of them halves the time of a build")

file(GLOB cuda_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/backend/cuda/*.cpp ${CMAKE_SOURCE_DIR}/src/backend/cuda/*.cu
  ${CMAKE_SOURCE_DIR}/src/backend/cuda/instantiations/*.cu)
add_library(minillm_cuda STATIC ${cuda_sources})
set_target_properties(minillm_cuda PROPERTIES CUDA_ARCHITECTURES "${MINILLM_CUDA_ARCHITECTURES}" CUDA_SEPARABLE_COMPILATION OFF)
file(GLOB hopper_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/backend/cuda/sm90/*.cpp ${CMAKE_SOURCE_DIR}/src/backend/cuda/sm90/*.cu)
add_library(minillm_cuda_sm90 OBJECT ${hopper_sources})
set_target_properties(minillm_cuda_sm90 PROPERTIES CUDA_ARCHITECTURES 90a-real CUDA_SEPARABLE_COMPILATION OFF)
foreach(target minillm_cuda minillm_cuda_sm90)
  target_include_directories(${target} PUBLIC ${CMAKE_SOURCE_DIR}/include PRIVATE ${CMAKE_SOURCE_DIR}/src)
  target_include_directories(${target} SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
  target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra>
    $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wshadow -Wconversion -Wswitch -Wnon-virtual-dtor -Werror>)
endforeach()
target_link_libraries(minillm_cuda_sm90 PUBLIC minillm_backend)
target_sources(minillm_cuda PRIVATE $<TARGET_OBJECTS:minillm_cuda_sm90>)
target_link_libraries(minillm_cuda PUBLIC minillm_backend PRIVATE CUDA::cudart_static CUDA::cublasLt)
