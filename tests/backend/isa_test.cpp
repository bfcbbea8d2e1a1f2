#include "backend/cpu/isa.h"

#include <gtest/gtest.h>

#include <string>

#include "minillm/error.h"

namespace minillm::cpu {
namespace {

TEST(Isa, TheBestSupportedOneIsChosenWithoutAWish) {
  const Isa chosen = choose_isa("");
  EXPECT_TRUE(is_supported(chosen));
  for (Isa isa : all_isas())
    if (is_supported(isa)) {
      EXPECT_LE(static_cast<int>(isa), static_cast<int>(chosen)) << name_of(isa);
    }
}

TEST(Isa, AWishIsFollowedOrRefused) {
  for (Isa isa : all_isas()) {
    if (is_supported(isa)) {
      EXPECT_EQ(choose_isa(name_of(isa)), isa);
      continue;
    }
    try {
      choose_isa(name_of(isa));
      FAIL() << name_of(isa);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
      EXPECT_NE(std::string(error.what()).find(name_of(isa)), std::string::npos);
    }
  }
}

TEST(Isa, AnUnknownNameIsRefusedWithTheKnownOnes) {
  for (const char* name : {"avx", "AVX2", "avx512", "sse2", " "}) {
    try {
      choose_isa(name);
      FAIL() << name;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      for (const char* part : {"MINILLM_ISA=", "scalar, avx2, avx_vnni, avx512_vnni, avx512_bf16, amx"})
        EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  }
}

TEST(Isa, ScalarIsAlwaysThere) { EXPECT_TRUE(is_supported(Isa::kScalar)); }

}  // namespace
}  // namespace minillm::cpu
