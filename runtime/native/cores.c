/* cores.c - how many there are, as the system tells it. */
#if defined(__linux__)
#define _GNU_SOURCE 1 /* sched_getaffinity */
#elif defined(__unix__) || defined(__APPLE__)
#define _DARWIN_C_SOURCE 1
#endif

#include "cores.h"

#if defined(__linux__)
#include <sched.h>

unsigned bsx_cores(void) {
    cpu_set_t allowed;
    const int found = sched_getaffinity(0, sizeof allowed, &allowed) == 0 ? CPU_COUNT(&allowed) : 1;
    return found > 0 ? (unsigned)found : 1;
}
#elif defined(__unix__) || defined(__APPLE__)
#include <unistd.h>

unsigned bsx_cores(void) {
    const long found = sysconf(_SC_NPROCESSORS_ONLN);
    return found > 0 ? (unsigned)found : 1;
}
#else
unsigned bsx_cores(void) { return 1; }
#endif
