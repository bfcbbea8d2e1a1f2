// sanitizer_options.h - for tests that ask for more memory than there is: the sanitizers' allocators then answer with null,
// as the system's does, instead of ending the process.
#pragma once

extern "C" {
__attribute__((weak, used, visibility("default"))) const char* __asan_default_options() { return "allocator_may_return_null=1"; }
__attribute__((weak, used, visibility("default"))) const char* __tsan_default_options() { return "allocator_may_return_null=1"; }
}
