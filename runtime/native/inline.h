/* inline.h - what compilers are asked for in the loops that matter. */
#ifndef BSX_INLINE_H
#define BSX_INLINE_H

#if defined(__GNUC__)
#define ALWAYS_INLINE static inline __attribute__((always_inline))
#define UNLIKELY(x) __builtin_expect(!!(x), 0)
#else
#define ALWAYS_INLINE static inline
#define UNLIKELY(x) (x)
#endif

#endif
