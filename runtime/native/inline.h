/* inline.h - what compilers are asked for: inlining in the loops that matter, and none in what is large and rare. */
#ifndef BSX_INLINE_H
#define BSX_INLINE_H

#if defined(__GNUC__)
#define ALWAYS_INLINE static inline __attribute__((always_inline))
#define NEVER_INLINE static __attribute__((noinline)) /* for size, where nothing is won by it */
#define UNLIKELY(x) __builtin_expect(!!(x), 0)
#else
#define ALWAYS_INLINE static inline
#define NEVER_INLINE static
#define UNLIKELY(x) (x)
#endif

#endif
