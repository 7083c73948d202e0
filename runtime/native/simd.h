/* simd.h - which vector instructions this is compiled for. Which of them the processor has is found out when it runs. */
#ifndef BSX_SIMD_H
#define BSX_SIMD_H

#if defined(__GNUC__) && defined(__x86_64__)
#define BSX_X86 1
#define TARGET_BMI2 __attribute__((target("bmi,bmi2,lzcnt")))
#elif defined(__GNUC__) && defined(__aarch64__)
#define BSX_NEON 1 /* every 64-bit ARM has it */
#endif

#endif
