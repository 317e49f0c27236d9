/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cuda.h - the part of CUDA's driver API that the stand-in serves, in our own declarations.
 *
 * Names, prototypes and numbers are facts of NVIDIA's public reference
 * (docs.nvidia.com/cuda/cuda-driver-api); the toolkit's header is not needed.
 *
 * CUDA_CALLS(X): X(name, symbol in the library, arguments). cuGetProcAddress() takes the name.
 */
#ifndef SELFTESTS_GPU_CUDA_H
#define SELFTESTS_GPU_CUDA_H

#include <stddef.h>
#include <stdint.h>

#define CUDA_LIBRARY "libcuda.so.1"

typedef uint32_t CUresult;
typedef int CUdevice;
typedef unsigned long long CUdeviceptr;
typedef struct cuda_gpu *CUcontext;
typedef struct cuda_stream *CUstream;
typedef struct cuda_event *CUevent;
typedef struct cuda_module *CUmodule;
typedef struct cuda_module *CUlibrary;
typedef struct cuda_function *CUfunction;
typedef struct cuda_function *CUkernel;
typedef struct cuda_graph *CUgraph;
typedef struct cuda_graph *CUgraphExec;
typedef struct {
	char bytes[16];
} CUuuid;

/* X(name, number, what it means) */
#define CUDA_ERRORS(X)                                                                     \
	X(CUDA_SUCCESS, 0, "no error")                                                     \
	X(CUDA_ERROR_INVALID_VALUE, 1, "invalid argument")                                 \
	X(CUDA_ERROR_OUT_OF_MEMORY, 2, "out of memory")                                    \
	X(CUDA_ERROR_NOT_INITIALIZED, 3, "initialization error")                           \
	X(CUDA_ERROR_DEVICE_UNAVAILABLE, 46, "CUDA-capable device is busy or unavailable") \
	X(CUDA_ERROR_NO_DEVICE, 100, "no CUDA-capable device is detected")                 \
	X(CUDA_ERROR_INVALID_DEVICE, 101, "invalid device ordinal")                        \
	X(CUDA_ERROR_INVALID_IMAGE, 200, "device kernel image is invalid")                 \
	X(CUDA_ERROR_INVALID_CONTEXT, 201, "invalid device context")                       \
	X(CUDA_ERROR_NO_BINARY_FOR_GPU, 209, "no kernel image is available")               \
	X(CUDA_ERROR_ECC_UNCORRECTABLE, 214, "uncorrectable ECC error encountered")        \
	X(CUDA_ERROR_INVALID_HANDLE, 400, "invalid resource handle")                       \
	X(CUDA_ERROR_ILLEGAL_STATE, 401, "the operation cannot be performed now")          \
	X(CUDA_ERROR_NOT_FOUND, 500, "named symbol not found")                             \
	X(CUDA_ERROR_NOT_READY, 600, "device not ready")                                   \
	X(CUDA_ERROR_ILLEGAL_ADDRESS, 700, "an illegal memory access was encountered")     \
	X(CUDA_ERROR_LAUNCH_TIMEOUT, 702, "the launch timed out and was terminated")       \
	X(CUDA_ERROR_ASSERT, 710, "device-side assert triggered")                          \
	X(CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED, 712, "memory is registered already")  \
	X(CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED, 713, "memory is not registered")          \
	X(CUDA_ERROR_LAUNCH_FAILED, 719, "unspecified launch failure")                     \
	X(CUDA_ERROR_NOT_SUPPORTED, 801, "operation not supported")                        \
	X(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, 900, "not permitted in a capture")        \
	X(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, 901, "the capture was invalidated")       \
	X(CUDA_ERROR_UNKNOWN, 999, "unknown error")

enum {
#define CUDA_ERROR_VALUE(name, number, text) name = number,
	CUDA_ERRORS(CUDA_ERROR_VALUE)
#undef CUDA_ERROR_VALUE
};

#define CU_STREAM_NON_BLOCKING	1
#define CU_EVENT_DISABLE_TIMING 2
#define CU_STREAM_LEGACY	((CUstream)1)

enum { CU_POINTER_MEMORY_TYPE = 2, CU_POINTER_DEVICE_ORDINAL = 9 };
enum { CU_MEMORYTYPE_HOST = 1, CU_MEMORYTYPE_DEVICE = 2 };

#define CUDA_CALLS(X)                                                                              \
	X(cuInit, cuInit, (unsigned int flags))                                                    \
	X(cuDriverGetVersion, cuDriverGetVersion, (int *to))                                       \
	X(cuGetErrorName, cuGetErrorName, (CUresult rc, const char **to))                          \
	X(cuGetErrorString, cuGetErrorString, (CUresult rc, const char **to))                      \
	X(cuGetProcAddress, cuGetProcAddress_v2,                                                   \
	  (const char *name, void **to, int version, uint64_t flags, int *status))                 \
	X(cuDeviceGet, cuDeviceGet, (CUdevice * to, int index))                                    \
	X(cuDeviceGetCount, cuDeviceGetCount, (int *to))                                           \
	X(cuDeviceGetName, cuDeviceGetName, (char *to, int len, CUdevice dev))                     \
	X(cuDeviceGetUuid, cuDeviceGetUuid_v2, (CUuuid * to, CUdevice dev))                        \
	X(cuDeviceTotalMem, cuDeviceTotalMem_v2, (size_t * to, CUdevice dev))                      \
	X(cuDeviceGetAttribute, cuDeviceGetAttribute, (int *to, int attribute, CUdevice dev))      \
	X(cuDeviceGetPCIBusId, cuDeviceGetPCIBusId, (char *to, int len, CUdevice dev))             \
	X(cuDeviceGetByPCIBusId, cuDeviceGetByPCIBusId, (CUdevice * to, const char *pci))          \
	X(cuDevicePrimaryCtxRetain, cuDevicePrimaryCtxRetain, (CUcontext * to, CUdevice dev))      \
	X(cuDevicePrimaryCtxRelease, cuDevicePrimaryCtxRelease_v2, (CUdevice dev))                 \
	X(cuDevicePrimaryCtxGetState, cuDevicePrimaryCtxGetState,                                  \
	  (CUdevice dev, unsigned int *flags, int *active))                                        \
	X(cuCtxSetCurrent, cuCtxSetCurrent, (CUcontext ctx))                                       \
	X(cuCtxGetCurrent, cuCtxGetCurrent, (CUcontext * to))                                      \
	X(cuCtxPushCurrent, cuCtxPushCurrent_v2, (CUcontext ctx))                                  \
	X(cuCtxPopCurrent, cuCtxPopCurrent_v2, (CUcontext * to))                                   \
	X(cuCtxGetDevice, cuCtxGetDevice, (CUdevice * to))                                         \
	X(cuCtxSynchronize, cuCtxSynchronize, (void))                                              \
	X(cuMemAlloc, cuMemAlloc_v2, (CUdeviceptr * to, size_t len))                               \
	X(cuMemFree, cuMemFree_v2, (CUdeviceptr at))                                               \
	X(cuMemGetInfo, cuMemGetInfo_v2, (size_t * free, size_t * total))                          \
	X(cuMemHostAlloc, cuMemHostAlloc, (void **to, size_t len, unsigned int flags))             \
	X(cuMemFreeHost, cuMemFreeHost, (void *at))                                                \
	X(cuMemHostRegister, cuMemHostRegister_v2, (void *at, size_t len, unsigned int flags))     \
	X(cuMemHostUnregister, cuMemHostUnregister, (void *at))                                    \
	X(cuMemHostGetDevicePointer, cuMemHostGetDevicePointer_v2,                                 \
	  (CUdeviceptr * to, void *at, unsigned int flags))                                        \
	X(cuPointerGetAttribute, cuPointerGetAttribute, (void *to, int attribute, CUdeviceptr at)) \
	X(cuMemcpyHtoD, cuMemcpyHtoD_v2, (CUdeviceptr to, const void *from, size_t len))           \
	X(cuMemcpyDtoH, cuMemcpyDtoH_v2, (void *to, CUdeviceptr from, size_t len))                 \
	X(cuMemcpyDtoD, cuMemcpyDtoD_v2, (CUdeviceptr to, CUdeviceptr from, size_t len))           \
	X(cuMemcpyHtoDAsync, cuMemcpyHtoDAsync_v2,                                                 \
	  (CUdeviceptr to, const void *from, size_t len, CUstream s))                              \
	X(cuMemcpyDtoHAsync, cuMemcpyDtoHAsync_v2,                                                 \
	  (void *to, CUdeviceptr from, size_t len, CUstream s))                                    \
	X(cuMemcpyDtoDAsync, cuMemcpyDtoDAsync_v2,                                                 \
	  (CUdeviceptr to, CUdeviceptr from, size_t len, CUstream s))                              \
	X(cuMemcpyAsync, cuMemcpyAsync,                                                            \
	  (CUdeviceptr to, CUdeviceptr from, size_t len, CUstream s))                              \
	X(cuMemsetD8, cuMemsetD8_v2, (CUdeviceptr to, unsigned char v, size_t n))                  \
	X(cuMemsetD32, cuMemsetD32_v2, (CUdeviceptr to, unsigned int v, size_t n))                 \
	X(cuMemsetD8Async, cuMemsetD8Async,                                                        \
	  (CUdeviceptr to, unsigned char v, size_t n, CUstream s))                                 \
	X(cuMemsetD32Async, cuMemsetD32Async,                                                      \
	  (CUdeviceptr to, unsigned int v, size_t n, CUstream s))                                  \
	X(cuStreamCreate, cuStreamCreate, (CUstream * to, unsigned int flags))                     \
	X(cuStreamCreateWithPriority, cuStreamCreateWithPriority,                                  \
	  (CUstream * to, unsigned int flags, int priority))                                       \
	X(cuStreamDestroy, cuStreamDestroy_v2, (CUstream s))                                       \
	X(cuStreamSynchronize, cuStreamSynchronize, (CUstream s))                                  \
	X(cuStreamQuery, cuStreamQuery, (CUstream s))                                              \
	X(cuStreamWaitEvent, cuStreamWaitEvent, (CUstream s, CUevent e, unsigned int flags))       \
	X(cuEventCreate, cuEventCreate, (CUevent * to, unsigned int flags))                        \
	X(cuEventDestroy, cuEventDestroy_v2, (CUevent e))                                          \
	X(cuEventRecord, cuEventRecord, (CUevent e, CUstream s))                                   \
	X(cuEventQuery, cuEventQuery, (CUevent e))                                                 \
	X(cuEventSynchronize, cuEventSynchronize, (CUevent e))                                     \
	X(cuEventElapsedTime, cuEventElapsedTime, (float *ms, CUevent from, CUevent to))           \
	X(cuModuleLoadData, cuModuleLoadData, (CUmodule * to, const void *image))                  \
	X(cuModuleUnload, cuModuleUnload, (CUmodule m))                                            \
	X(cuModuleGetFunction, cuModuleGetFunction,                                                \
	  (CUfunction * to, CUmodule m, const char *name))                                         \
	X(cuLibraryLoadData, cuLibraryLoadData,                                                    \
	  (CUlibrary * to, const void *image, int *jit, void **jit_values, unsigned int njit,      \
	   int *options, void **option_values, unsigned int noptions))                             \
	X(cuLibraryUnload, cuLibraryUnload, (CUlibrary l))                                         \
	X(cuLibraryGetKernel, cuLibraryGetKernel, (CUkernel * to, CUlibrary l, const char *name))  \
	X(cuKernelGetFunction, cuKernelGetFunction, (CUfunction * to, CUkernel k))                 \
	X(cuFuncSetAttribute, cuFuncSetAttribute, (CUfunction f, int attribute, int value))        \
	X(cuFuncGetAttribute, cuFuncGetAttribute, (int *to, int attribute, CUfunction f))          \
	X(cuLaunchKernel, cuLaunchKernel,                                                          \
	  (CUfunction f, unsigned int gx, unsigned int gy, unsigned int gz, unsigned int bx,       \
	   unsigned int by, unsigned int bz, unsigned int shared, CUstream s, void **params,       \
	   void **extra))                                                                          \
	X(cuStreamBeginCapture, cuStreamBeginCapture_v2, (CUstream s, int mode))                   \
	X(cuStreamEndCapture, cuStreamEndCapture, (CUstream s, CUgraph * to))                      \
	X(cuStreamIsCapturing, cuStreamIsCapturing, (CUstream s, int *to))                         \
	X(cuGraphInstantiateWithFlags, cuGraphInstantiateWithFlags,                                \
	  (CUgraphExec * to, CUgraph g, unsigned long long flags))                                 \
	X(cuGraphLaunch, cuGraphLaunch, (CUgraphExec g, CUstream s))                               \
	X(cuGraphExecDestroy, cuGraphExecDestroy, (CUgraphExec g))                                 \
	X(cuGraphDestroy, cuGraphDestroy, (CUgraph g))                                             \
	/* EOL */

#endif /* SELFTESTS_GPU_CUDA_H */
